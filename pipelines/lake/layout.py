"""How the rows of a table lie in its files: in the order of keys, so that a change touches few of them."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq

from conf.contract import Table
from pipelines.core.sql import identifier
from pipelines.lake.engine import Engine, relation
from pipelines.lake.folders import storage

# When so many files are small, neighbours that are small together become one.
MANY_SMALL_FILES, SMALL_FILE_BYTES = 8, 16 * 2**20

LARGE_FILE_BYTES = 128 * 2**20  # a file of twice that is cut


@dataclass(frozen=True)
class DataFile:
    """A data file, its bytes, and the least and the greatest of its first keys; None if its footer does not say."""

    path: str
    bytes: int
    span: tuple[int, int] | None


def data_files(table: Table, paths: Iterable[str]) -> list[DataFile]:
    """Data files in the order of their keys; those of unknown keys last."""
    files = [DataFile(path, Path(path).stat().st_size, _span(table, path)) for path in paths]
    return sorted(files, key=lambda file: (file.span is None, file.span or (), file.path))


def _span(table: Table, path: str) -> tuple[int, int] | None:
    if table[table.keys[0]].type not in ("bigint", "integer", "smallint"):
        return None
    with storage(path):
        footer = pq.read_metadata(path)
    column = footer.schema.to_arrow_schema().get_field_index(table.keys[0])
    statistics = [footer.row_group(group).column(column).statistics for group in range(footer.num_row_groups)]
    if not statistics or not all(group and group.has_min_max for group in statistics):
        return None
    return min(group.min for group in statistics), max(group.max for group in statistics)


@dataclass(frozen=True)
class Span:
    """The rows of a table whose first keys lie between two, ends included: they are in these files. Without ends: all
    rows of the files."""

    files: tuple[str, ...]
    ends: tuple[int, int] | None


def spans(table: Table, paths: Iterable[str]) -> list[Span]:
    """All rows of data files, cut where a file begins, in the order of keys; in a single span if the keys of a file are
    not known."""
    files = data_files(table, paths)
    known = [file.span for file in files if file.span]
    if len(known) < len(files):
        return [Span(tuple(file.path for file in files), None)]
    cut = list[Span]()
    leasts = sorted({least for least, _ in known})
    for least, after in zip(leasts, [*leasts[1:], None], strict=True):
        there = [
            (file.path, most)
            for file, (first, most) in zip(files, known, strict=True)
            if (after is None or first < after) and most >= least
        ]
        greatest = max(most for _, most in there)
        end = greatest if after is None else min(greatest, after - 1)
        cut.append(Span(tuple(path for path, _ in there), (least, end)))
    return cut


@dataclass(frozen=True)
class Piece:
    """A new file: what is left of the rows of `files`, and the rows that come, as far as their first key lies in the
    range that `kept` and `added` say, as SQL conditions."""

    files: tuple[str, ...]
    kept: str
    added: str


def pieces(db: Engine, key: str, files: Sequence[DataFile], touched: Collection[str], came: str) -> list[Piece]:
    """The new files of a table whose rows go from the files `touched` and come from the relation `came`. A row comes
    into the file in whose range its first key lies, or at the end; without known ranges all come at the end."""
    bounds = [file.span[0] for file in files if file.span]
    column, end = identifier(key), len(files)
    if len(bounds) < end or not files:
        arrivals = {end}
    else:
        numbered = f"(SELECT unnest({bounds}::hugeint[]) AS least, unnest(range({end})) AS number)"
        greatest = max(file.span[1] for file in files if file.span)
        place = f"CASE WHEN key > {greatest} THEN {end} ELSE coalesce(number, 0) END"
        keys = f"(SELECT {column}::hugeint AS key FROM {came})"
        rows = db.execute(f"SELECT DISTINCT {place} FROM {keys} ASOF LEFT JOIN {numbered} ON key >= least").fetchall()
        arrivals = {number for (number,) in rows}
    parts = list[Piece]()
    groups = _groups(files, {number for number, file in enumerate(files) if file.path in touched or number in arrivals})
    takes_end = bool(groups) and len(groups[-1]) > 1 and groups[-1].stop == end
    for group in groups:
        added = "false"
        if len(bounds) == end:
            below = f"{column} < {bounds[group.stop]}" if group.stop < end else f"{column} <= {greatest}"
            below = "true" if group.stop == end and takes_end else below
            added = f"{column} >= {bounds[group.start]} AND {below}" if group.start else f"({below}) IS NOT FALSE"
        elif group.stop == end and takes_end:
            added = "true"
        parts += _cut(db, column, [files[number] for number in group], added)
    if not takes_end:
        parts.append(Piece((), "true", f"{column} > {greatest}" if files and len(bounds) == end else "true"))
    return parts


def _groups(files: Sequence[DataFile], touched: Collection[int]) -> list[range]:
    """The files that are written again, by number; small neighbours become one when there are many small ones."""
    number = sum(file.bytes < SMALL_FILE_BYTES for file in files)
    is_merging, groups, start = number >= MANY_SMALL_FILES, list[range](), 0
    while start < len(files):
        stop, size = start + 1, files[start].bytes
        while is_merging and stop < len(files) and size + files[stop].bytes <= SMALL_FILE_BYTES:
            size += files[stop].bytes
            stop += 1
        if start in touched or stop > start + 1:
            groups.append(range(start, stop))
        start = stop
    return groups


def _cut(db: Engine, column: str, files: Sequence[DataFile], added: str) -> Iterator[Piece]:
    """One piece, or several of equal size, in the order of keys, if it would be large."""
    paths, number = tuple(file.path for file in files), sum(file.bytes for file in files) // LARGE_FILE_BYTES
    if number < 2 or any(file.span is None for file in files):
        yield Piece(paths, "true", added)
        return
    shares = [index / number for index in range(1, number)]
    rows = relation(paths, {})
    cuts = db.execute(f"SELECT quantile_disc({column}, {shares}) FROM {rows}").fetchone() or ([],)
    for least, most in pairwise([None, *cuts[0], None]):
        ends = [f"{column} >= {least}"] * (least is not None) + [f"{column} < {most}"] * (most is not None)
        within = " AND ".join(ends)
        within = within if least is not None else f"({within}) IS NOT FALSE"
        yield Piece(paths, within, f"{added} AND {within}")
