"""The one way to change a table, in each layer: the next version of it is made of the last one and what changed.

What changes is written first, as a change data file; then the files in which rows go, or in whose key range rows come,
are written again, side by side; then all of it is proved. And what changed between two versions: the change data files
say it, or else the files that only one of both has are compared. All of it is DuckDB's work (ADR 33).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from conf.contract import Column, Table
from pipelines.core.errors import QualityFault
from pipelines.core.points import Point, crash_point
from pipelines.lake import delta
from pipelines.lake.checksums import measured
from pipelines.lake.delta import CAME, CHANGE, GONE
from pipelines.lake.engine import Engine, count, exact, listed, relation, renamed, save, within, without
from pipelines.lake.layout import Piece, data_files, pieces
from pipelines.lake.runs import Mode, TableRun, row_counts
from pipelines.lake.versions import StagedTable, TableVersion, unchanged_table

TECHNICAL = ("_batch",)

CHANGED_SHARE = 0.25  # of a table's rows; if more are affected, it is built in full


def rows_referring_to(rows: str, column: Column, keys: str) -> str:
    """SQL of the rows whose reference is among `keys`, a relation of keys of the table that `column` points at."""
    assert column.reference is not None
    named = renamed(column.reference.table.keys, column.foreign_key)
    return within(rows, column.foreign_key, f"(SELECT {named} FROM {keys})")


def changed_keys(old: TableVersion, new: TableVersion) -> str:
    """SQL of the keys that only one of two versions has, or in which they differ, and maybe of keys that other versions
    between them had. A key comes once in each."""
    differing, feed, keys = differing_keys(*sides(old, new), old, new), _feed(old, new) or [], listed(old.keys)
    if len(feed) < 2:
        return differing
    # A key that went, came back as it was, and went again, has the same rows on both sides, but more on this one.
    rows = relation(feed, {CHANGE: "string"} | {key: old.types[key] for key in old.keys})
    came = f"count(*) FILTER ({CHANGE} IN {CAME})"
    return f"({differing} UNION SELECT {keys} FROM {rows} GROUP BY {keys} HAVING count(*) <> 2 * {came})"


def sides(old: TableVersion, new: TableVersion) -> tuple[str, str]:
    """SQL of the rows that only the first of two versions has, and of those that only the second has; rows that both
    have, or that a version between them had, may be in both."""
    feed = _feed(old, new)
    if feed is not None:
        return _fed(feed, old, GONE), _fed(feed, old, CAME)
    if old.base is not None or new.base is not None:
        return old.sql, new.sql
    gone, came = set(old.files) - set(new.files), set(new.files) - set(old.files)
    return old.only(gone).sql, new.only(came).sql


def _feed(old: TableVersion, new: TableVersion) -> list[str] | None:
    """The change data files that lead from a version to a later one; None if they do not."""
    if old.path is None or old.path != new.path or old.types != new.types or old.number is None or new.number is None:
        return None
    files = delta.feed(old.path, old.number, new.number)
    return None if files is None else [*files, *filter(None, [new.feed])]


def _fed(feed: Sequence[str], version: TableVersion, kinds: Sequence[str]) -> str:
    """SQL of the rows in change data files that go, or that come."""
    return relation(feed, version.types, f"{CHANGE} IN {kinds}")


def differing_keys(old_rows: str, new_rows: str, old: TableVersion, new: TableVersion) -> str:
    """SQL of the keys of which two relations have other rows; `old` and `new` say which columns these have. With the
    key id and the column nome, so that floats and decimals compare exactly:

    SELECT "id"
    FROM (SELECT "id", true AS _____, "nome" AS _____0 FROM old_rows) a
    FULL JOIN (SELECT "id", true AS _____, "nome" AS _____0 FROM new_rows) b USING ("id")
    WHERE a._____ IS NULL OR b._____ IS NULL OR a._____0 IS DISTINCT FROM b._____0
    """
    keys, values, name = listed(old.keys), _values(new), _free_name(new)
    if values.keys() != _values(old).keys():
        return f"(SELECT {keys} FROM {old_rows} UNION SELECT {keys} FROM {new_rows})"
    columns = "".join(f", {exact(*column)} AS {name}{index}" for index, column in enumerate(values.items()))
    old_side, new_side = (f"(SELECT {keys}, true AS {name}{columns} FROM {rows})" for rows in (old_rows, new_rows))
    others = "".join(f" OR a.{name}{index} IS DISTINCT FROM b.{name}{index}" for index in range(len(values)))
    differs = f"a.{name} IS NULL OR b.{name} IS NULL{others}"
    return f"(SELECT {keys} FROM {old_side} a FULL JOIN {new_side} b USING ({keys}) WHERE {differs})"


def _values(version: TableVersion) -> dict[str, str]:
    return {name: kind for name, kind in version.types.items() if name not in (*version.keys, *TECHNICAL)}


@dataclass(frozen=True)
class Target:
    """Where new files of a table go, and the run that makes them."""

    table: Table
    path: Path
    run: int

    def new(self, folder: str = "") -> str:
        """The name of a new file, from the table's folder."""
        delta.make_folder(self.path, folder)
        return str(Path(folder, delta.part_name(self.run)))

    def paths(self, names: Iterable[str]) -> list[str]:
        return [str(self.path / name) for name in names]

    def remove(self, names: Iterable[str]) -> None:
        """Removes files that no commit names."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)


def write(db: Engine, rows: str, target: Target, folder: str = "") -> list[str]:
    """Writes the rows of a relation as one file, in a folder of the table's. Its name; none when there are no rows."""
    name, number = target.new(folder), 0
    try:
        save(db, rows, target.path / name)
        number = pq.read_metadata(target.path / name).num_rows
    finally:
        if not number:
            target.remove([name])
    return [name] if number else []


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
    """The next version of a table. Raises QualityFault unless the files written have what those had in whose place they
    are, less what is replaced, and the new rows."""
    return _spliced(db, change, _replaced(db, change), target)


def merged(db: Engine, old: TableVersion, table_run: TableRun, target: Target) -> StagedTable:
    """The same rows in fewer files, if many of a table's are small. Raises QualityFault unless they are the same."""
    nothing = relation([], old.types)
    staged = splice(db, Splice(old, table_run, Selection(old.keys, nothing), nothing), target)
    return replace(staged, table_run=table_run, counts=None)


def splice_differing(db: Engine, change: Splice, target: Target) -> StagedTable:
    """The same of a table whose keys come once, but rows that are there already stay in their files; the unchanged
    table if all of them are."""
    old, gone = change.old, _replaced(db, change)
    keys = db.keep(f"SELECT * FROM {differing_keys(gone, change.rows, old, old)}")
    if not count(db, keys):
        return unchanged_table(change.table_run, target.table, target.path)
    differing = replace(change, replaced=Selection(old.keys, keys), rows=within(change.rows, old.keys, keys))
    return _spliced(db, differing, within(gone, old.keys, keys), target)


def _free_name(version: TableVersion) -> str:
    """A name that no column of a version has."""
    return "_" * (1 + max(map(len, version.types)))


def _replaced(db: Engine, change: Splice) -> str:
    """The rows that are replaced, kept with the file of each."""
    rows = relation(change.old.files, change.old.types, file=_free_name(change.old))
    return db.keep(f"SELECT * FROM {change.replaced.of(rows)}")


def _spliced(db: Engine, change: Splice, gone: str, target: Target) -> StagedTable:
    """The next version; `gone` is a relation of the rows that go, with the file of each."""
    old, columns, keys = change.old, listed(change.old.types), listed(change.old.keys)
    feed = _write_feed(db, change, gone, target)
    came = _fed(target.paths(feed), old, CAME)
    replaced = replace(change.replaced, relation=_fed(target.paths(feed), old, GONE))
    holders = {file for (file,) in db.execute(f"SELECT DISTINCT {_free_name(old)} FROM {gone}").fetchall()}
    new = pieces(db, old.keys[0], data_files(target.table, old.files), holders, came)

    def written(piece: Piece, connection: Engine) -> list[str]:
        kept = replaced.rest(f"(FROM {old.only(piece.files).sql} WHERE {piece.kept})")
        rows = f"SELECT {columns} FROM {kept} UNION ALL SELECT {columns} FROM {came} WHERE {piece.added}"
        return write(connection, f"(FROM ({rows}) ORDER BY {keys})", target)

    works = [partial(written, piece) for piece in new]
    try:
        with db.side_by_side(works) as working:
            files = [file for work in working for file in work.result()]
    except duckdb.OutOfMemoryException:  # its rows are so wide that several files do not fit
        ended = [work for work in working if not (work.cancelled() or work.exception())]
        target.remove(file for work in ended for file in work.result())
        files = [file for work in works for file in work(db)]
    crash_point(Point.FILES_SPLICED)
    touched = {file for piece in new for file in piece.files}
    stays = tuple(Path(file).name for file in old.files if file not in touched)
    staged = StagedTable(change.table_run, target.table, target.path, files, kept=stays, feed="".join(feed))
    return _proved(db, change, count(db, gone), staged)


def _write_feed(db: Engine, change: Splice, gone: str, target: Target) -> list[str]:
    """Writes the rows that go and those that come as a change data file. Its name; none when there are no such rows.

    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#change-data-files
    """
    columns, keys = listed(change.old.types), change.old.keys
    sides = [
        f"SELECT {columns}, '{kind}' AS {CHANGE} FROM {among(rows, keys, others)}"
        for rows, others, kinds in ((gone, change.rows, GONE), (change.rows, gone, CAME))
        for among, kind in zip((within, without), kinds, strict=True)
    ]
    rows = f"({' UNION ALL '.join(sides)})"
    return write(db, rows, target, delta.FEED)


def _proved(db: Engine, change: Splice, gone_rows: int, staged: StagedTable) -> StagedTable:
    """`staged` with its record, when the files written have what those had in whose place they are, less what went and
    with what came, and the change data file has the same."""
    old, record = change.old, change.table_run
    touched = set(old.files) - {str(staged.path / name) for name in staged.kept or ()}
    feed = [str(staged.path / staged.feed)] if staged.feed else []
    relations = (
        _fed(feed, old, GONE),
        change.rows,
        relation([str(staged.path / file) for file in staged.files], old.types),
    )
    gone, came, actual = (measured(db, rows, old.types, old.keys) for rows in relations)
    is_known = touched == set(old.files)
    before = record.content if is_known else measured(db, old.only(touched).sql, old.types, old.keys)
    if gone.rows != gone_rows or actual != before.after(gone, came):
        what = f"{staged.table.layer}.{record.name}"
        raise QualityFault(f"{what}: a row was lost or doubled on the way; run it again")
    counts = row_counts(came.rows, gone.rows, count(db, relation(feed, old.types, f"{CHANGE} = '{CAME[0]}'")))
    rows, columns = record.content.after(gone, came)
    record = replace(record, rows_in=rows, rows_out=rows, columns=columns, mode=Mode.CHANGED, how=counts.text)
    return replace(staged, table_run=record, counts=counts)
