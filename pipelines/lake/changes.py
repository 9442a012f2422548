"""What changed between two versions of a table, and a version made of the one before and what changed.

Files that both versions have hold the same rows, so only the others are looked at. All of it is DuckDB's work.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from conf.contract import Column, Table
from pipelines.core.errors import QualityFault
from pipelines.core.points import Point, crash_point
from pipelines.core.sql import identifier
from pipelines.lake import delta
from pipelines.lake.checksums import Columns, adjusted, measured
from pipelines.lake.engine import Engine, exact, listed, named_files, relation, save, within, without
from pipelines.lake.runs import Mode, TableRun
from pipelines.lake.staging import StagedTable
from pipelines.lake.versions import TableVersion

TECHNICAL = ("_batch",)


SMALL, MANY = 16 * 2**20, 8


SHARE = 0.25  # of a table's rows; where more are affected, all are built again


def rows_referring_to(rows: str, column: Column, keys: str) -> str:
    """SQL of the rows whose reference is among `keys`, a relation of keys of the table that `column` points at."""
    assert column.reference is not None
    pairs = zip(column.reference.table.keys, column.foreign_key, strict=True)
    named = ", ".join(f"{identifier(key)} AS {identifier(name)}" for key, name in pairs)
    return within(rows, column.foreign_key, f"(SELECT {named} FROM {keys})")


def changed_keys(old: TableVersion, new: TableVersion) -> str:
    """SQL of the keys that only one of two versions has, or that have other values. A key comes once in each."""
    gone, came = set(old.files) - set(new.files), set(new.files) - set(old.files)
    if old.base is None and new.base is None:
        return differing_keys(old.only(gone).sql, new.only(came).sql, old, new)
    if not gone:  # batches were appended
        return f"(SELECT DISTINCT {listed(new.keys)} FROM {new.only(came).raw})"
    return differing_keys(old.sql, new.sql, old, new)


def differing_keys(one: str, other: str, old: TableVersion, new: TableVersion) -> str:
    """SQL of the keys of which two relations have other rows; `old` and `new` say which columns these have."""
    keys = old.keys
    values = {name: kind for name, kind in new.types.items() if name not in (*keys, *TECHNICAL)}
    if values.keys() != {name for name in old.types if name not in (*keys, *TECHNICAL)}:
        return f"(SELECT {listed(keys)} FROM {one} UNION SELECT {listed(keys)} FROM {other})"
    sides = [
        f"(SELECT {listed(keys)}, true AS _here"
        + "".join(f", {exact(name, kind)} AS v{index}" for index, (name, kind) in enumerate(values.items()))
        + f" FROM {rows})"
        for rows in (one, other)
    ]
    differs = "".join(f" OR a.v{index} IS DISTINCT FROM b.v{index}" for index in range(len(values)))
    where = f"a._here IS NULL OR b._here IS NULL{differs}"
    return f"(SELECT {listed(keys)} FROM {sides[0]} a FULL JOIN {sides[1]} b USING ({listed(keys)}) WHERE {where})"


@dataclass(frozen=True)
class Target:
    """Where new files of a table go, and the run that makes them."""

    table: Table
    path: Path
    run: int

    def new(self) -> str:
        delta.make_folder(self.path)
        return delta.part_name(self.run)


def write(db: Engine, rows: str, place: Target) -> list[str]:
    """Writes the rows of a relation as one file, none where there are none. Its name."""
    name = place.new()
    try:
        save(db, rows, place.path / name)
        if pq.read_metadata(place.path / name).num_rows:
            return [name]
    except BaseException:
        (place.path / name).unlink(missing_ok=True)
        raise
    (place.path / name).unlink()
    return []


def splice(db: Engine, old: TableVersion, done: TableRun, place: Target, keys: str, rows: str) -> StagedTable:
    """A version in which the rows of `keys` (a table of `db`) are those of the relation `rows`, all others as in `old`.

    Only files that hold one of the keys are written again, and small ones where there are many. Raises QualityFault
    where what was written is not that.
    """
    own, files = old.keys, set(old.files)
    rows_of, file = named_files(old.files, old.types)
    sql = f"SELECT DISTINCT {file} FROM {rows_of} SEMI JOIN {keys} USING ({listed(own)})"
    found = db.execute(sql).fetchall() if files else []
    touched = {str(name) for (name,) in found}
    small = {file for file in files if Path(file).stat().st_size < SMALL}
    if len(small) >= MANY:
        touched |= small
    written: list[str] = []
    try:
        for file in sorted(touched - small):
            written += write(db, without(old.only({file}).sql, own, keys), place)
        rest = without(old.only(touched & small).sql, own, keys)
        columns = listed(old.types)
        fresh = f"(SELECT {columns} FROM {rest} UNION ALL SELECT {columns} FROM {rows})"
        written += write(db, fresh, place)
        kept = tuple(Path(file).name for file in sorted(files - touched))
        crash_point(Point.FILES_SPLICED)
        return _proved(db, old, done, place, keys, rows, touched, written, kept)
    except BaseException:
        for name in written:
            (place.path / name).unlink(missing_ok=True)
        raise


def _proved(
    db: Engine,
    old: TableVersion,
    done: TableRun,
    place: Target,
    keys: str,
    rows: str,
    touched: set[str],
    written: list[str],
    kept: tuple[str, ...],
) -> StagedTable:
    """What was written, if it has what the files it replaces had, less the rows of the keys, and the new rows."""
    types, own = old.types, old.keys

    def of(relation: str) -> tuple[int, Columns]:
        return measured(db, relation, types, own)

    before, now = of(old.only(touched).sql), of(relation([str(place.path / name) for name in written], types))
    gone, came = of(within(old.only(touched).sql, own, keys)), of(rows)
    if now != (before[0] - gone[0] + came[0], adjusted(before[1], gone[1], came[1])):
        raise QualityFault(f"{place.table.layer}.{done.name}: a row was lost or doubled on the way; run it again")
    total = done.rows_out - gone[0] + came[0]
    how = f"{came[0]:,} written, {gone[0]:,} replaced"
    columns = adjusted(done.columns, gone[1], came[1])
    done = replace(done, rows_in=total, rows_out=total, columns=columns, mode=Mode.CHANGED, how=how)
    return StagedTable(done, place.table, place.path, None, written, (), kept)
