"""Files as a source: those in the landing folder that no run has ingested become Parquet files of bronze.

A file is known by its name and the hash of its content. Files are ingested in the order in which they arrived: by the
time of their last change, then by name.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from itertools import islice
from pathlib import Path
from stat import S_ISREG

import pyarrow as pa
import pyarrow.compute as pc

from conf.contract import Table
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault
from pipelines.core.names import AT, DELETED, LINE, REST, WHY
from pipelines.core.points import Point, crash_point
from pipelines.lake import folders
from pipelines.lake.changes import Target
from pipelines.lake.runs import IngestedFile
from pipelines.lake.schema import arrow_type, complete, schema_of, types_of, writer_of
from pipelines.sources.files.delimited import Bad, Row, rows, unread
from pipelines.sources.files.values import column_of

AUDIT = {
    "_rescued": "string",
    "_extra": "string",
    "_source_file": "string",
    "_source_row": "bigint",
    "_batch": "bigint",
    DELETED: "boolean",
}

READ_ROWS, WRITE_ROWS = 10_000, 100_000  # at a time

# The place of each column in a row: the contract's columns, and others, by name.
Shape = tuple[dict[str, int], dict[str, int]]


@dataclass(frozen=True)
class LandedFile:
    """A file that arrived, for a table; `modified`: when it was last changed."""

    table: Table
    name: str
    path: Path
    bytes: int
    modified: datetime


def arrived(folder: Path, tables: Iterable[Table]) -> list[LandedFile]:
    """The files that a landing folder has for some tables, in order; an empty file counts as not yet delivered. Raises
    ContractFault if a file is for two tables."""
    files: dict[str, tuple[int, LandedFile]] = {}
    for table in tables:
        assert table.files is not None
        for path in folder.glob(table.files.pattern):
            if path.name.startswith((".", "_")) or not (stat := _stat(path)) or not stat.st_size:
                continue
            if other := files.get(path.name):
                name = other[1].table.name
                raise ContractFault(f"{path}: it is for both {name} and {table.name}; correct their patterns")
            modified = datetime.fromtimestamp(stat.st_mtime, UTC)
            files[path.name] = stat.st_mtime_ns, LandedFile(table, path.name, path, stat.st_size, modified)
    return [file for _, file in sorted(files.values(), key=lambda item: (item[0], item[1].name))]


def unmatched(folder: Path, files: Iterable[LandedFile]) -> list[str]:
    """The names of what a landing folder has, except the files of its tables and those that are still empty."""
    known, there = {file.name for file in files}, folder.iterdir() if folder.is_dir() else ()
    others = [path for path in there if path.name not in known and not path.name.startswith((".", "_"))]
    others = [path for path in others if not ((stat := _stat(path)) and not stat.st_size)]
    return sorted(path.name.encode("utf-8", "backslashreplace").decode() for path in others)


def _stat(path: Path) -> os.stat_result | None:
    """None if it is no file that can be read, is gone, or has a name that is no text."""
    try:
        path.name.encode()
        return stat if S_ISREG((stat := path.stat()).st_mode) else None
    except (OSError, UnicodeEncodeError):
        return None


def not_ingested(
    files: Iterable[LandedFile], ingested: Iterable[IngestedFile], thorough: bool = True
) -> tuple[list[LandedFile], dict[LandedFile, str]]:
    """The files that no run has ingested yet, or that replace one that was; and, with the problem in words, those whose
    content changed since and that may not. Unless `thorough`, a file is read only if its size or time changed."""
    known = {(file.table, file.name): file for file in ingested}
    new, refused = list[LandedFile](), dict[LandedFile, str]()
    for file in files:
        old = known.get((file.table.name, file.name))
        if old is None:
            new.append(file)
        elif (thorough or (file.bytes, file.modified) != (old.bytes, old.modified)) and hashed(file) != old.sha256:
            if file.table.files and file.table.files.replaced:
                new.append(file)
            else:
                problem = f"{file.path} was taken by run {old.run} and has other content now"
                refused[file] = f"{problem}; give new rows a file of a new name"
    return new, refused


def ingest(
    files: Sequence[LandedFile], place: Target, first: int, report: Report
) -> tuple[list[IngestedFile], str, dict[str, Decimal]]:
    """Writes the rows of a table's files, in order, as one Parquet file; a bad line becomes a row with only its text
    in `_rescued`. Returns the ingested files, the Parquet file's name, and the sums of its amounts.

    `first`: the number of the first line for a serial column. Raises SourceFault."""
    table, name, ingested, pending = place.table, place.new(), list[IngestedFile](), list[pa.RecordBatch]()
    target, schema = place.path / name, schema_of(types_of(table, AUDIT))
    totals = {column.name: Decimal(0) for column in table.summed}
    with folders.storage(f"file {target}"), writer_of(target, schema) as parquet:
        for file in files:
            tally = Tally(first)
            sha256 = hashed(file)
            for batch in _batches(file, place.run, tally):
                pending.append(batch)
                if sum(rows.num_rows for rows in pending) >= WRITE_ROWS:
                    parquet.write_table(pa.Table.from_batches(pending))
                    pending.clear()
                report.progress("bronze", table.name, batch.num_rows)
                with localcontext(prec=76):
                    for column in totals:
                        totals[column] += pc.sum(batch[column]).as_py() or 0
            if hashed(file) != sha256:
                raise SourceFault(f"{file.path} changed while it was read; put files there by renaming them")
            place_of = (place.run, table.domain, table.name, file.name)
            ingested.append(IngestedFile(*place_of, sha256, file.bytes, file.modified, **vars(tally)))
            first += tally.lines
        parquet.write_table(pa.Table.from_batches(pending, schema))
    crash_point(Point.FILE_INGESTED)
    return ingested, name, totals


@contextmanager
def _readable(file: LandedFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceFault(f"{file.path}: {error.strerror}; correct its rights, or put it there again") from error


def hashed(file: LandedFile) -> str:
    """SHA-256 of a file's content. Raises SourceFault."""
    with _readable(file), file.path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@dataclass
class Tally:
    """What was read of a file: the number of its first line, its lines, how many are no rows, why no line is a row, and
    the columns that no contract names."""

    first: int
    lines: int = 0
    bad: int = 0
    why: str = ""
    extras: tuple[str, ...] = ()


def _batches(file: LandedFile, run: int, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The rows of a file as bronze has them, some at a time."""
    assert file.table.files is not None
    dialect = file.table.files.dialect
    with _readable(file):
        records = rows(file.path, dialect)
        shape = _shape(file.table, next(records, None))
        if isinstance(shape, str):
            tally.why, records, shape = shape, unread(file.path, dialect, shape), ({}, {})
        tally.extras = tuple(shape[1])
        while lines := list(islice(records, READ_ROWS)):
            batch = _batch(file, shape, lines, run, tally.first + tally.lines)
            tally.lines += len(lines)
            tally.bad += sum(isinstance(line, Bad) for line in lines)
            yield batch


def _shape(table: Table, header: Row | Bad | None) -> Shape | str:
    """What a file's header says, or why no row can be read."""
    if header is None or isinstance(header, Bad):
        return "it has no header" if header is None else f"its header: {header.why}"
    names = [name or "" for name in header.texts]
    if names[-1].endswith("\r"):
        return "its lines end with CR LF, the contract says LF"
    wanted = {column.name: column for column in table.columns if not column.serial}
    # A name that no contract has is not shown: a file without a header has a row in its place.
    twice = {name if name in wanted else "a name" for name in names if names.count(name) > 1}
    wrong = [f"has {name} twice" for name in sorted(twice)]
    wrong += [f"has no {name}" for name, column in wanted.items() if name not in names and not column.optional]
    if wrong:
        return f"its header {', '.join(wrong)}"
    places = {name: index for index, name in enumerate(names)}
    others = {name: place for name, place in places.items() if name not in wanted}
    return {name: place for name, place in places.items() if name in wanted}, others


def _batch(file: LandedFile, shape: Shape, lines: list[Row | Bad], run: int, first: int) -> pa.RecordBatch:
    """Lines as rows of bronze: a value that its column cannot hold is null and in `_rescued`; a bad line is, too."""
    table, dialect = file.table, file.table.files.dialect  # type: ignore[union-attr]
    columns, others = shape
    rescued = [
        {LINE: line.raw, WHY: line.why, AT: f"{file.name}, {line.line}"} if isinstance(line, Bad) else dict[str, str]()
        for line in lines
    ]
    made: dict[str, pa.Array] = {}
    for column in table.columns:
        if column.serial:
            made[column.name] = pa.array(range(first, first + len(lines)), arrow_type(column.type))
        elif (place := columns.get(column.name)) is not None:
            texts = [line.texts[place] if isinstance(line, Row) else None for line in lines]
            made[column.name], unfit = column_of(column.type, column.name in dialect.decimal_comma, texts)
            for index, text in unfit.items():
                rescued[index][column.name] = text
    for index, line in enumerate(lines):
        if isinstance(line, Row) and line.rest:
            rescued[index][REST] = table.columns[-1].name
    extras = [
        {name: line.texts[place] for name, place in others.items()} if isinstance(line, Row) else {} for line in lines
    ]
    made |= {
        "_rescued": pa.array(map(_json, rescued), pa.string()),
        "_extra": pa.array(map(_json, extras), pa.string()),
        "_source_file": pa.repeat(file.name, len(lines)),
        "_source_row": pa.array((line.line for line in lines), pa.int64()),
    }
    return complete(made, schema_of(types_of(table, AUDIT)), len(lines), run)


def _json(values: Mapping[str, str | None]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if values else None
