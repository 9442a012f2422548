"""Files as a source: those in the landing folder that no run has taken, as Parquet files of bronze.

A file is known by its name and the hash of its content. They are taken in the order in which they came: by the time of
their last change, then by name.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from pipelines.lake import schema as lake_schema
from pipelines.lake.changes import Target
from pipelines.lake.runs import IngestedFile
from pipelines.lake.schema import arrow_type, writer_of
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


BATCH, GROUP = 10_000, 100_000  # rows that are made, and written, at once


@dataclass(frozen=True)
class LandedFile:
    """A file that came: its table, its name, its path, its size, and when it was last changed."""

    table: Table
    name: str
    path: Path
    bytes: int
    modified: datetime


def arrived(folder: Path, tables: Iterable[Table]) -> list[LandedFile]:
    """The files that a landing folder has for some tables, in order; those that are empty still are to come. Raises
    ContractFault where one is for two."""
    found: dict[str, tuple[int, LandedFile]] = {}
    for table in tables:
        assert table.files is not None
        for path in folder.glob(table.files.pattern):
            if path.name.startswith((".", "_")) or not (stat := _stat(path)) or not stat.st_size:
                continue
            if other := found.get(path.name):
                name = other[1].table.name
                raise ContractFault(f"{path}: it is for both {name} and {table.name}; mend their patterns")
            modified = datetime.fromtimestamp(stat.st_mtime, UTC)
            found[path.name] = stat.st_mtime_ns, LandedFile(table, path.name, path, stat.st_size, modified)
    return [file for _, file in sorted(found.values(), key=lambda one: (one[0], one[1].name))]


def unmatched(folder: Path, files: Iterable[LandedFile]) -> list[str]:
    """The names of what a landing folder has, but for the files of its tables and what is still to come."""
    known = {file.name for file in files}
    there = [path for path in folder.iterdir() if not path.name.startswith((".", "_"))] if folder.is_dir() else []
    others = [path for path in there if path.name not in known and not ((stat := _stat(path)) and not stat.st_size)]
    return sorted(path.name.encode("utf-8", "backslashreplace").decode() for path in others)


def _stat(path: Path) -> os.stat_result | None:
    """None where it is no file that can be read, is gone, or has a name that is no text."""
    try:
        path.name.encode()
        return stat if S_ISREG((stat := path.stat()).st_mode) else None
    except (OSError, UnicodeEncodeError):
        return None


def not_ingested(
    files: Iterable[LandedFile], taken: Iterable[IngestedFile], thorough: bool = True
) -> tuple[list[LandedFile], dict[LandedFile, str]]:
    """The files that no run has taken yet, or that take the place of one; and those that have other content than when
    they were taken, and may not, with what to say. Unless `thorough`, a file is read only if its size or time changed.
    """
    known = {(one.table, one.name): one for one in taken}
    some: list[LandedFile] = []
    refused: dict[LandedFile, str] = {}
    for file in files:
        was = known.get((file.table.name, file.name))
        if was is None:
            some.append(file)
        elif (thorough or (file.bytes, file.modified) != (was.bytes, was.modified)) and hashed(file) != was.sha256:
            if file.table.files and file.table.files.replaced:
                some.append(file)
            else:
                said = f"{file.path} was taken by run {was.run} and has other content now"
                refused[file] = f"{said}; give new rows a file of a new name"
    return some, refused


def ingest(
    files: Sequence[LandedFile], place: Target, first: int, report: Report
) -> tuple[list[IngestedFile], str, dict[str, Decimal]]:
    """Writes the rows of some files of a table, in order, as one Parquet file, a bad line as a row that has nothing but
    its text in `_rescued`; what was taken, the Parquet file's name, and the sums of its amounts. `first` is the number
    of the first line for a serial column. Raises SourceFault."""
    table, name, taken = place.table, place.new(), list[IngestedFile]()
    target = place.path / name
    totals = {column.name: Decimal(0) for column in table.summed}
    try:
        with folders.storage(f"file {target}"), _parquet(target, lake_schema.schema_of(table, AUDIT)) as write:
            for file in files:
                one = Tally(first)
                sha256 = hashed(file)
                for batch in _batches(file, place.run, one):
                    write(batch)
                    report.progress("bronze", table.name, batch.num_rows)
                    with localcontext(prec=76):
                        for column in totals:
                            totals[column] += pc.sum(batch[column]).as_py() or 0
                if hashed(file) != sha256:
                    raise SourceFault(f"{file.path} changed while it was read; put files there by renaming them")
                taken.append(_taken(place.run, file, sha256, one))
                first += one.lines
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    crash_point(Point.FILE_INGESTED)
    return taken, name, totals


def _taken(run: int, file: LandedFile, sha256: str, read: "Tally") -> IngestedFile:
    table, named = file.table, {"sha256": sha256, "bytes": file.bytes, "modified": file.modified}
    return IngestedFile(run, table.domain, table.name, file.name, **named, **vars(read))  # type: ignore[arg-type]


@contextmanager
def _parquet(file: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """A function that writes rows to a Parquet file, many at a time."""
    some: list[pa.RecordBatch] = []
    with writer_of(file, schema) as parquet:

        def flush() -> None:
            parquet.write_table(pa.Table.from_batches(some, schema))
            some.clear()

        def write(batch: pa.RecordBatch) -> None:
            some.append(batch)
            if sum(one.num_rows for one in some) >= GROUP:
                flush()

        yield write
        flush()


@contextmanager
def _readable(file: LandedFile) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceFault(f"{file.path}: {error.strerror}; mend its rights, or put it there again") from error


def hashed(file: LandedFile) -> str:
    """SHA-256 of a file's content. Raises SourceFault."""
    with _readable(file), file.path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@dataclass
class Tally:
    """What was read of a file: the number of its first line, its lines, those that are no rows, why none is, and the
    columns that no contract names."""

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
        header = next(records, None)
    shape = _shape(file.table, header)
    if isinstance(shape, str):
        tally.why, records, shape = shape, unread(file.path, dialect, shape), Shape({}, {})
    tally.extras = tuple(shape.extras)
    while True:
        with _readable(file):
            lines = list(islice(records, BATCH))
        if not lines:
            return
        batch = _batch(file, shape, lines, run, tally.first + tally.lines)
        tally.lines += len(lines)
        tally.bad += sum(isinstance(one, Bad) for one in lines)
        yield batch


@dataclass(frozen=True)
class Shape:
    """Where the fields of a row have what: the contract's columns, and others, by name."""

    columns: dict[str, int]
    extras: dict[str, int]


def _shape(table: Table, header: Row | Bad | None) -> Shape | str:
    """What a file's header says; or why no row can be read."""
    if header is None or isinstance(header, Bad):
        return "it has no header" if header is None else f"its header: {header.why}"
    names = [name or "" for name in header.texts]
    if names[-1].endswith("\r"):
        return "its lines end with CR LF, the contract says LF"
    wanted = {column.name: column for column in table.columns if not column.serial}
    # Of names that no contract has nothing is shown: a file without a header has a row in its place.
    twice = {name if name in wanted else "a name" for name in names if names.count(name) > 1}
    wrong = [f"has {name} twice" for name in sorted(twice)]
    wrong += [f"has no {name}" for name, one in wanted.items() if name not in names and not one.optional]
    if wrong:
        return f"its header {', '.join(wrong)}"
    places = {name: index for index, name in enumerate(names)}
    return Shape(
        {name: index for name, index in places.items() if name in wanted},
        {name: index for name, index in places.items() if name not in wanted},
    )


def _batch(file: LandedFile, shape: Shape, lines: list[Row | Bad], run: int, first: int) -> pa.RecordBatch:
    """Lines as rows of bronze: what a column cannot hold is null and stands in `_rescued`, as does a bad line."""
    table, dialect = file.table, file.table.files.dialect  # type: ignore[union-attr]
    rescued = [
        {LINE: one.raw, WHY: one.why, AT: f"{file.name}, {one.line}"} if isinstance(one, Bad) else dict[str, str]()
        for one in lines
    ]
    made: dict[str, pa.Array] = {}
    for column in table.columns:
        if column.serial:
            made[column.name] = pa.array(range(first, first + len(lines)), arrow_type(column.type))
        elif (place := shape.columns.get(column.name)) is not None:
            texts = [one.texts[place] if isinstance(one, Row) else None for one in lines]
            made[column.name], left = column_of(column.type, column.name in dialect.decimal_comma, texts)
            for index, text in left.items():
                rescued[index][column.name] = text
    for index, one in enumerate(lines):
        if isinstance(one, Row) and one.rest:
            rescued[index][REST] = table.columns[-1].name
    extras = [
        {name: one.texts[place] for name, place in shape.extras.items()} if isinstance(one, Row) else {}
        for one in lines
    ]
    made |= {
        "_rescued": pa.array(map(_json, rescued), pa.string()),
        "_extra": pa.array(map(_json, extras), pa.string()),
        "_source_file": pa.repeat(file.name, len(lines)),
        "_source_row": pa.array((one.line for one in lines), pa.int64()),
        "_batch": pa.repeat(pa.scalar(run, pa.int64()), len(lines)),
        DELETED: pa.repeat(False, len(lines)),
    }
    whole = lake_schema.schema_of(table, AUDIT)
    nulls = {field.name: pa.nulls(len(lines), field.type) for field in whole}
    return pa.record_batch([(nulls | made)[field.name] for field in whole], schema=whole)


def _json(values: Mapping[str, str | None]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if values else None
