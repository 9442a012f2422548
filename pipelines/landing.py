"""Files as a source: those in the landing folder that no run has taken, each as one Parquet file of bronze.

A file is known by its name and the hash of its content. They are taken in the order in which they came: by the time of
their last change, then by name.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from conf.contract import Table
from pipelines import lake
from pipelines.arrow import arrow_type
from pipelines.content import DELETED
from pipelines.delimited import Bad, Row, rows
from pipelines.errors import ContractFault, SourceFault
from pipelines.reader import writer_of
from pipelines.texts import column_of

AUDIT = {
    "_rescued": "string",
    "_extra": "string",
    "_source_file": "string",
    "_source_row": "bigint",
    "_batch": "bigint",
    DELETED: "boolean",
}
LINE, WHY = "_line", "_why"  # of a line that is no row, in `_rescued`
BATCH = 10_000  # rows that are held at once


@dataclass(frozen=True)
class File:
    """A file that came: its table, its name, its path, and when it was last changed."""

    table: Table
    name: str
    path: Path
    modified: datetime


@dataclass(frozen=True)
class Taken:
    """A file that a run took. `lines`: those behind the header, bad ones too; `bad`: those that are no rows."""

    run: int
    domain: str
    table: str
    name: str
    sha256: str
    bytes: int
    modified: datetime
    lines: int
    bad: int


def arrived(folder: Path, tables: Iterable[Table]) -> list[File]:
    """The files that a landing folder has for some tables, in order. Raises ContractFault where one is for two."""
    found: dict[str, File] = {}
    for table in tables:
        assert table.files is not None
        for path in folder.glob(table.files.pattern):
            if path.name.startswith((".", "_")) or not path.is_file():
                continue
            if other := found.get(path.name):
                raise ContractFault(f"{path}: it is for both {other.table.name} and {table.name}; mend their patterns")
            modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            found[path.name] = File(table, path.name, path, modified)
    return sorted(found.values(), key=lambda file: (file.path.stat().st_mtime_ns, file.name))


def new(files: Iterable[File], taken: Iterable[Taken]) -> list[File]:
    """The files that no run has taken yet. Raises SourceFault where one has other content than when it was taken."""
    known = {(one.table, one.name): one for one in taken}
    some = []
    for file in files:
        was = known.get((file.table.name, file.name))
        if was is None:
            some.append(file)
        elif lake.sha256(file.path) != was.sha256:
            raise SourceFault(
                f"{file.path} was taken by run {was.run} and has other content now; give new rows a file of a new name"
            )
    return some


def take(file: File, target: Path, run: int, first: int) -> tuple[Taken, str, dict[str, Decimal]]:
    """Writes the rows of a file as a Parquet file into the folder `target`, a bad line as a row that has nothing but
    its text in `_rescued`; what was taken, the Parquet file's name, and the sums of its amounts. `first` is the number
    of the first line for a serial column. Raises ContractFault and SourceFault."""
    sha256, tally, name = lake.sha256(file.path), Tally(), lake.part_name(run)
    try:
        with writer_of(target / name, lake.schema_of(file.table, AUDIT)) as parquet:
            for batch in _batches(file, run, first, tally):
                parquet.write_batch(batch)
        if lake.sha256(file.path) != sha256:
            raise SourceFault(f"{file.path} changed while it was read; put files there by renaming them")
    except BaseException:
        (target / name).unlink(missing_ok=True)
        raise
    place = file.table.domain, file.table.name, file.name
    size = file.path.stat().st_size
    return Taken(run, *place, sha256, size, file.modified, tally.lines, tally.bad), name, tally.totals


@dataclass
class Tally:
    """What was read: lines behind the header, those that are no rows, the sums of amounts by column."""

    lines: int = 0
    bad: int = 0
    totals: dict[str, Decimal] = field(default_factory=dict)


def _batches(file: File, run: int, first: int, tally: Tally) -> Iterator[pa.RecordBatch]:
    """The rows of a file as bronze has them, some at a time."""
    assert file.table.files is not None
    tally.totals = {column.name: Decimal(0) for column in file.table.summed}
    with lake.storage(f"file {file.path}"):
        records = rows(file.path, file.table.files.dialect)
        shape = _shape(file, next(records, None))
        while lines := list(islice(records, BATCH)):
            batch = _batch(file, shape, lines, run, first + tally.lines)
            tally.lines += len(lines)
            tally.bad += sum(isinstance(one, Bad) for one in lines)
            with localcontext(prec=76):
                for name in tally.totals:
                    tally.totals[name] += pc.sum(batch[name]).as_py() or 0
            yield batch


@dataclass(frozen=True)
class Shape:
    """Where the fields of a row have what: the contract's columns, and others, by name."""

    columns: dict[str, int]
    extras: dict[str, int]


def _shape(file: File, header: Row | Bad | None) -> Shape:
    """What a file's header says. Raises ContractFault where it lacks a column, or has one twice."""
    if header is None or isinstance(header, Bad):
        said = "it is empty" if header is None else f"its header: {header.why}"
        raise ContractFault(f"{file.path}: {said}; mend the file, or move it away")
    names = [name or "" for name in header.texts]
    wanted = {column.name: column for column in file.table.columns if not column.serial}
    wrong = [f"it has column {name} twice" for name in sorted({name for name in names if names.count(name) > 1})]
    wrong += [f"it has no column {name}" for name, one in wanted.items() if name not in names and not one.optional]
    if wrong:
        raise ContractFault(f"{file.path}: {'; '.join(wrong)}; its header has {', '.join(names)}")
    places = {name: index for index, name in enumerate(names)}
    return Shape(
        {name: index for name, index in places.items() if name in wanted},
        {name: index for name, index in places.items() if name not in wanted},
    )


def _batch(file: File, shape: Shape, lines: list[Row | Bad], run: int, first: int) -> pa.RecordBatch:
    """Lines as rows of bronze: what a column cannot hold is null and stands in `_rescued`, as does a bad line."""
    table, dialect = file.table, file.table.files.dialect  # type: ignore[union-attr]
    rescued = [{LINE: one.raw, WHY: one.why} if isinstance(one, Bad) else dict[str, str]() for one in lines]
    made: dict[str, pa.Array] = {}
    for column in table.columns:
        if column.serial:
            made[column.name] = pa.array(range(first, first + len(lines)), arrow_type(column.type))
        elif (place := shape.columns.get(column.name)) is not None:
            texts = [one.texts[place] if isinstance(one, Row) else None for one in lines]
            made[column.name], left = column_of(column.type, column.name in dialect.decimal_comma, texts)
            for index, text in left.items():
                rescued[index][column.name] = text
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
    whole = lake.schema_of(table, AUDIT)
    nulls = {field.name: pa.nulls(len(lines), field.type) for field in whole}
    return pa.record_batch([(nulls | made)[field.name] for field in whole], schema=whole)


def _json(values: Mapping[str, str | None]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if values else None
