"""How the rows of a table lie in its files: in the order of keys, so that a change touches few of them."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
    if not statistics or not all(group and group.has_min_max and not group.null_count for group in statistics):
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
    for least, after in zip(leasts, [*leasts[1:], None], strict=False):
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
    """A new file: what is left of the rows of `files` that meet the condition `kept`, and the rows that come and meet
    the condition `added`."""

    files: tuple[str, ...]
    kept: str
    added: str


def pieces(db: Engine, key: str, files: Sequence[DataFile], touched: Collection[str], came: str) -> list[Piece]:
    """The new files of a table whose rows go from the files `touched` and come from the relation `came`. A row comes
    into the file in whose range its first key lies, or into one at the end; they all do where ranges are not known."""
    column, end = identifier(key), len(files)
    numbers = {number for number, file in enumerate(files) if file.path in touched}
    known = [file.span for file in files if file.span]
    if len(known) < end or not files:
        groups = _groups(files, numbers)
        return [*(Piece(_paths(files, group), "true", "false") for group in groups), Piece((), "true", "true")]
    least, greatest = [first for first, _ in known], max(last for _, last in known)
    numbered = f"(SELECT unnest({least}::hugeint[]) AS least, unnest(range({end})) AS number)"
    place = f"CASE WHEN key > {greatest} THEN {end} ELSE coalesce(number, 0) END"
    keys = f"(SELECT {column}::hugeint AS key FROM {came})"
    rows = db.execute(f"SELECT DISTINCT {place} FROM {keys} ASOF LEFT JOIN {numbered} ON key >= least").fetchall()
    groups = _groups(files, numbers.union(*rows))
    is_last = bool(groups) and len(groups[-1]) > 1 and groups[-1].stop == end  # and so takes what comes at the end
    last = "true" if is_last else f"{column} <= {greatest}"
    starts = sorted({cut for group in groups for cut in (least[group.start], *_cuts(db, key, files, group))})
    parts, rewritten = list[Piece](), [number for group in groups for number in group]
    for first, after, within in _ranges(column, starts, last):
        here = [at for at in rewritten if known[at][1] >= first and (after is None or least[at] < after)]
        parts.append(Piece(_paths(files, here), within, within))
    if any(len(part.files) > MANY_SMALL_FILES for part in parts):  # in no order: each would be read too often
        ranges = _ranges(column, [least[group.start] for group in groups], last)
        parts = [Piece(_paths(files, group), "true", it[-1]) for group, it in zip(groups, ranges, strict=True)]
    return parts if is_last else [*parts, Piece((), "true", f"{column} > {greatest}")]


def _ranges(column: str, starts: Sequence[int], last: str) -> Iterator[tuple[int, int | None, str]]:
    """The ranges that begin at `starts`, the first one open: where each begins, where it ends, and its condition, of
    which `last` is the end of the last."""
    for number, (first, after) in enumerate(zip(starts, [*starts[1:], None], strict=False)):
        below = last if after is None else f"{column} < {after}"
        yield first, after, f"{column} >= {first} AND {below}" if number else f"({below}) IS NOT FALSE"


def _paths(files: Sequence[DataFile], numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(files[number].path for number in numbers)


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


def _cuts(db: Engine, key: str, files: Sequence[DataFile], group: range) -> list[int]:
    """Where the rows of files are cut so that no new file is large."""
    number = sum(files[at].bytes for at in group) // LARGE_FILE_BYTES
    shares = [index / number for index in range(1, number)]
    rows = relation(_paths(files, group), {key: "bigint"})
    cut = db.execute(f"SELECT quantile_disc({identifier(key)}, {shares}) FROM {rows}").fetchone() if shares else None
    return list(cut[0]) if cut else []
