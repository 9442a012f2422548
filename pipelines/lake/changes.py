"""What changed between two versions of a table, and the next version, made of the previous one and what changed.

Files that both versions have hold the same rows, so only the others are looked at. All of it is DuckDB's work.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from conf.contract import Column, Table
from pipelines.core.errors import QualityFault
from pipelines.core.points import Point, crash_point
from pipelines.lake import delta
from pipelines.lake.checksums import Content, measured
from pipelines.lake.engine import Engine, count, exact, listed, named_files, relation, renamed, save, within, without
from pipelines.lake.runs import Mode, RowCounts, TableRun, row_counts
from pipelines.lake.versions import StagedTable, TableVersion, unchanged_table

TECHNICAL = ("_batch",)

# So many files, each smaller than that, become one.
SMALL_FILE_BYTES, MANY_SMALL_FILES = 16 * 2**20, 8

CHANGED_SHARE = 0.25  # of a table's rows; if more are affected, it is built in full


def rows_referring_to(rows: str, column: Column, keys: str) -> str:
    """SQL of the rows whose reference is among `keys`, a relation of keys of the table that `column` points at."""
    assert column.reference is not None
    named = renamed(column.reference.table.keys, column.foreign_key)
    return within(rows, column.foreign_key, f"(SELECT {named} FROM {keys})")


def changed_keys(old: TableVersion, new: TableVersion) -> str:
    """SQL of the keys that only one of two versions has, or in which they differ. A key comes once in each."""
    gone, came = set(old.files) - set(new.files), set(new.files) - set(old.files)
    if old.base is None and new.base is None:
        return differing_keys(old.only(gone).sql, new.only(came).sql, old, new)
    if not gone:  # batches were appended
        return f"(SELECT DISTINCT {listed(new.keys)} FROM {new.only(came).raw})"
    return differing_keys(old.sql, new.sql, old, new)


def differing_keys(old_rows: str, new_rows: str, old: TableVersion, new: TableVersion) -> str:
    """SQL of the keys of which two relations have other rows; `old` and `new` say which columns these have. With the
    key id and the column nome, so that floats and decimals compare exactly:

    SELECT "id"
    FROM (SELECT "id", true AS _here, "nome" AS v0 FROM old_rows) a
    FULL JOIN (SELECT "id", true AS _here, "nome" AS v0 FROM new_rows) b USING ("id")
    WHERE a._here IS NULL OR b._here IS NULL OR a.v0 IS DISTINCT FROM b.v0
    """
    keys, values = listed(old.keys), _values(new)
    if values.keys() != _values(old).keys():
        return f"(SELECT {keys} FROM {old_rows} UNION SELECT {keys} FROM {new_rows})"
    columns = "".join(f", {exact(*column)} AS v{index}" for index, column in enumerate(values.items()))
    old_side, new_side = (f"(SELECT {keys}, true AS _here{columns} FROM {rows})" for rows in (old_rows, new_rows))
    others = "".join(f" OR a.v{index} IS DISTINCT FROM b.v{index}" for index in range(len(values)))
    differs = f"a._here IS NULL OR b._here IS NULL{others}"
    return f"(SELECT {keys} FROM {old_side} a FULL JOIN {new_side} b USING ({keys}) WHERE {differs})"


def _values(version: TableVersion) -> dict[str, str]:
    return {name: kind for name, kind in version.types.items() if name not in (*version.keys, *TECHNICAL)}


@dataclass(frozen=True)
class Target:
    """Where new files of a table go, and the run that makes them."""

    table: Table
    path: Path
    run: int

    def new(self) -> str:
        """The name of a new file."""
        delta.make_folder(self.path)
        return delta.part_name(self.run)

    def paths(self, names: Iterable[str]) -> list[str]:
        return [str(self.path / name) for name in names]

    def remove(self, names: Iterable[str]) -> None:
        """Removes files that no commit names."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)


def write(db: Engine, rows: str, target: Target) -> list[str]:
    """Writes the rows of a relation as one file. Its name; nothing when there are no rows."""
    name = target.new()
    save(db, rows, target.path / name)
    if pq.read_metadata(target.path / name).num_rows:
        return [name]
    target.remove([name])
    return []


@dataclass(frozen=True)
class Selection:
    """The rows of a table whose `columns` have values that a relation of such columns has."""

    columns: Sequence[str]
    relation: str

    def of(self, rows: str) -> str:
        return within(rows, self.columns, self.relation)

    def rest(self, rows: str) -> str:
        return without(rows, self.columns, self.relation)


@dataclass(frozen=True)
class Splice:
    """A change of a table: in `old`, which `table_run` records, a relation `rows` takes the place of rows."""

    old: TableVersion
    table_run: TableRun
    replaced: Selection
    rows: str


def splice(db: Engine, change: Splice, target: Target) -> StagedTable:
    """The next version of a table. Only files with replaced rows and many small ones are written again, small ones and
    new rows as one. Raises QualityFault unless this has what the files had, less what is replaced, and the new rows."""
    old, replaced = change.old, change.replaced
    small = {file for file in old.files if Path(file).stat().st_size < SMALL_FILE_BYTES}
    touched = set(small) if len(small) >= MANY_SMALL_FILES else set()
    if old.files:
        rows_of, file = named_files(old.files, old.types)
        touched |= {name for (name,) in db.execute(f"SELECT DISTINCT {file} FROM {replaced.of(rows_of)}").fetchall()}
    small &= touched
    written = list[str]()
    for file in sorted(touched - small):
        written += write(db, replaced.rest(old.only({file}).sql), target)
    columns, rest = listed(old.types), replaced.rest(old.only(small).sql)
    written += write(db, f"(SELECT {columns} FROM {rest} UNION ALL SELECT {columns} FROM {change.rows})", target)
    crash_point(Point.FILES_SPLICED)
    what = f"{target.table.layer}.{change.table_run.name}"
    table_run, counts = _proved(db, what, change, touched, target.paths(written))
    kept = tuple(Path(file).name for file in old.files if file not in touched)
    return StagedTable(table_run, target.table, target.path, written, (), kept, counts=counts)


def splice_differing(db: Engine, change: Splice, target: Target) -> StagedTable:
    """The same, but rows that are there already stay in their files; the unchanged table if all of them are."""
    old = change.old
    keys = db.keep(f"SELECT * FROM {differing_keys(change.replaced.of(old.sql), change.rows, old, old)}")
    if not count(db, keys):
        return unchanged_table(change.table_run, target.table, target.path)
    differing = Selection(old.keys, keys)
    return splice(db, replace(change, replaced=differing, rows=differing.of(change.rows)), target)


def _proved(db: Engine, what: str, change: Splice, touched: set[str], written: list[str]) -> tuple[TableRun, RowCounts]:
    """The record of the next version and its row counts, when the files written have what the touched ones had, as it
    should be."""
    old, touched_rows = change.old, change.old.only(touched).sql
    relations = (change.replaced.of(touched_rows), change.rows, touched_rows, relation(written, old.types))
    gone, came, before, actual = (measured(db, rows, old.types, old.keys) for rows in relations)
    if actual != before.after(gone, came):
        raise QualityFault(f"{what}: a row was lost or doubled on the way; run it again")
    updated = count(db, within(change.rows, old.keys, change.replaced.of(touched_rows))) if gone.rows else 0
    counts = row_counts(came.rows, gone.rows, updated)
    return spliced(change.table_run, gone, came, counts), counts


def spliced(table_run: TableRun, gone: Content, came: Content, counts: RowCounts) -> TableRun:
    """The record of a table after some rows went and others came."""
    rows, columns = table_run.content.after(gone, came)
    return replace(table_run, rows_in=rows, rows_out=rows, columns=columns, mode=Mode.CHANGED, how=counts.text)
