"""Files as a source: those in the landing folder that no run has ingested become Parquet files of bronze.

A file is known by its name and the hash of its content. Files are ingested in the order in which they arrived: by the
time of their last change, then by name.
"""

import errno
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fnmatch import fnmatchcase
from itertools import chain, count, islice
from pathlib import Path
from stat import S_IROTH, S_ISREG

import pyarrow as pa
import pyarrow.compute as pc

from conf.contract import Table
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault
from pipelines.core.names import AT, LINE, REST, WHY
from pipelines.core.points import Point, crash_point
from pipelines.lake import folders
from pipelines.lake.changes import Target
from pipelines.lake.runs import IngestedFile
from pipelines.lake.schema import arrow_type, complete, schema_of, types_of, writer_of
from pipelines.sources.files.delimited import COLUMN_LIMIT, LINE_ENDS, Bad, Row, rows, unread
from pipelines.sources.files.values import column_of

AUDIT = {
    "_rescued": "string",
    "_extra": "string",
    "_source_file": "string",
    "_source_row": "bigint",
    "_batch": "bigint",
}

READ_ROWS, READ_CHARACTERS = 10_000, 4 * 2**20  # at a time
WRITE_ROWS, WRITE_BYTES, JOIN_BATCHES = 100_000, 128 * 2**20, 1000

NAME_LIMIT = 255  # characters of a column that no contract has, which is recorded
FOLDER = os.O_RDONLY | os.O_DIRECTORY
# What breaks a line, commands a terminal or is no text.
UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
FIRST, LAST = -62_135_596_800, 253_402_300_799  # the seconds of the years 1 and 9999

# Why something in a landing folder is not taken.
NO_TABLE = "no table takes it"
NO_NAME = "its name is not a line of text; rename it"
NO_FILE = "it is a link, a folder or a device; put a file itself there"
MANY_NAMES = "it has other names, too, and not everybody may read it; put a copy there"

# The place of each column in a row: the contract's columns, and others, by name.
Shape = tuple[dict[str, int], dict[str, int]]


@dataclass(frozen=True)
class LandedFile:
    """A file that arrived, for a table; `modified`: when it was last changed. If it was read before: the `sha256` of
    what it had then, and the `numbers` that its lines were given."""

    table: Table
    name: str
    path: Path
    bytes: int
    modified: datetime
    sha256: str = ""
    numbers: tuple[range, ...] = ()


def arrived(folder: Path, tables: Sequence[Table]) -> tuple[list[LandedFile], dict[str, list[str]]]:
    """The files that a landing folder has for some tables, in order; an empty file counts as not yet delivered. And the
    names of all else, by why it is not taken. No link is followed, except that the landing folder may be one. Raises
    ContractFault if a file is for two tables, SourceFault if the folder cannot be read."""
    files, others = list[LandedFile](), defaultdict[str, list[str]](list)
    for name, stat in sorted(_entries(folder), key=lambda entry: (entry[1].st_mtime_ns, entry[0])):
        matching = [table for table in tables if table.files and fnmatchcase(name, table.files.pattern)]
        if len(matching) > 1:
            both = " and ".join(table.name for table in matching[:2])
            raise ContractFault(f"{folder / name}: it is for both {both}; correct their patterns")
        why = NO_TABLE if not matching else NO_NAME if UNSHOWN.search(name) else unfit(stat)
        if not stat.st_size and S_ISREG(stat.st_mode):
            continue
        if why:
            others[why].append(name)
        else:
            files.append(LandedFile(matching[0], name, folder / name, stat.st_size, _moment(stat.st_mtime)))
    return files, others


def _entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """What lies in a folder, links not followed. Names that begin with a dot or an underscore do not count."""
    with (
        _readable(folder),
        suppress(FileNotFoundError),
        _descriptor(folder, FOLDER) as opened,
        os.scandir(opened) as all_,
    ):
        for entry in all_:
            if not entry.name.startswith((".", "_")):
                with suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)


def unfit(stat: os.stat_result) -> str:
    """Why a file may not be read; empty if it may. Who may write here can give any file on this disk another name, as
    far as the system lets them."""
    if not S_ISREG(stat.st_mode):
        return NO_FILE
    return MANY_NAMES if stat.st_nlink > 1 and not stat.st_mode & S_IROTH else ""


def _moment(seconds: float) -> datetime:
    """A time of the file system, or the nearest that we can write."""
    return datetime.fromtimestamp(min(max(seconds, FIRST), LAST), UTC)


def not_ingested(
    files: Iterable[LandedFile], ingested: Iterable[IngestedFile], thorough: bool = True, again: Set[str] = frozenset()
) -> tuple[list[LandedFile], dict[LandedFile, str]]:
    """The files that no run has ingested yet, or that replace one that was; and, with the problem in words, those whose
    content changed since and that may not, which is for their contract to say, or for the names that are taken `again`.
    Unless `thorough`, a file is read only if its size or time changed."""
    known = {(file.table, file.name): file for file in ingested}
    new, refused = list[LandedFile](), dict[LandedFile, str]()
    for file in files:
        old = known.get((file.table.name, file.name))
        if old is None:
            new.append(file)
        elif (thorough or (file.bytes, file.modified) != (old.bytes, old.modified)) and hashed(file) != old.sha256:
            if (file.table.files and file.table.files.replaced) or file.name in again:
                new.append(file)
            else:
                refused[file] = f"{file.path} was taken by run {old.run} and has other content now"
    return new, refused


def ingest(
    files: Sequence[LandedFile], place: Target, first: int, report: Report
) -> tuple[list[IngestedFile], str, dict[str, Decimal]]:
    """Writes the rows of a table's files, in order, as one Parquet file; a bad line becomes a row with only its text
    in `_rescued`. Returns the ingested files, the Parquet file's name, and the sums of its amounts.

    `first`: for a serial column, the number of the first line that has none yet. Raises SourceFault."""
    table, name, ingested = place.table, place.new(), list[IngestedFile]()
    first = max([first, *(given.stop for file in files for given in file.numbers)])
    pending, rows_pending, bytes_pending = list[pa.RecordBatch](), 0, 0
    target, schema = place.path / name, schema_of(types_of(table, AUDIT))
    totals = {column.name: Decimal(0) for column in table.summed}
    with folders.storage(f"file {target}"), writer_of(target, schema) as parquet:
        for file in files:
            lines = bad = 0
            numbers = chain(*file.numbers, count(first))
            with opened(file) as descriptor:
                sha256 = _hashed(file, descriptor)
                shape, why, records = _read(file, descriptor)
                for portion in _portions(file, records, sum(map(len, shape[1]))):
                    with _readable(file.path):
                        batch = _batch(file, shape, portion, place.run, [*islice(numbers, len(portion))])
                    lines += batch.num_rows
                    bad += sum(isinstance(line, Bad) for line in portion)
                    pending.append(batch)
                    rows_pending, bytes_pending = rows_pending + batch.num_rows, bytes_pending + batch.nbytes
                    if rows_pending >= WRITE_ROWS or bytes_pending >= WRITE_BYTES:
                        parquet.write_table(pa.Table.from_batches(pending))
                        pending, rows_pending, bytes_pending = [], 0, 0
                    if len(pending) >= JOIN_BATCHES:  # of small files, each of which takes more than its rows do
                        pending = pa.Table.from_batches(pending).combine_chunks().to_batches()
                    report.progress("bronze", table.name, batch.num_rows)
                    with localcontext(prec=76):
                        for column in totals:
                            totals[column] += pc.sum(batch[column]).as_py() or 0
                if _hashed(file, descriptor) != sha256 or file.sha256 not in ("", sha256):
                    raise SourceFault(f"{file.path} changed while it was read; run it again when the file is complete")
            more = range(first, first + lines - sum(map(len, file.numbers)))
            given = [part for part in (*file.numbers, more) if part] or [more]
            first += len(more)
            spans = tuple(end for span in given for end in (span.start, span.stop)) if given[1:] else ()
            known = (place.run, table.domain, table.name, file.name, sha256, file.bytes, file.modified)
            ingested.append(IngestedFile(*known, given[0].start, lines, bad, why, tuple(shape[1]), spans))
        parquet.write_table(pa.Table.from_batches(pending, schema))
    crash_point(Point.FILE_INGESTED)
    return ingested, name, totals


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise SourceFault(f"{path} is a link or lies behind one; put there what it leads to") from error
        raise SourceFault(f"{path}: {error.strerror}; correct its rights, or put it there again") from error
    except UnicodeError as error:
        raise SourceFault(f"{path} is not text in the encoding that its contract names; put it there again") from error


@contextmanager
def _descriptor(path: Path, flags: int, folder: int | None = None) -> Iterator[int]:
    """A file or folder, opened without following a link at the end of its path, nor waiting for a writer."""
    opened = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        yield opened
    finally:
        os.close(opened)


@contextmanager
def opened(file: LandedFile) -> Iterator[int]:
    """A landed file, open for reading. Raises SourceFault if it cannot be read, or what has its name now may not be."""
    with ExitStack() as stack:
        with _readable(file.path):
            folder = stack.enter_context(_descriptor(file.path.parent, FOLDER))
            descriptor = stack.enter_context(_descriptor(Path(file.name), os.O_RDONLY, folder))
            if why := unfit(os.fstat(descriptor)):
                raise SourceFault(f"{file.path} is not read: {why}")
        yield descriptor


def hashed(file: LandedFile) -> str:
    """SHA-256 of a file's content. Raises SourceFault."""
    with opened(file) as descriptor:
        return _hashed(file, descriptor)


def _hashed(file: LandedFile, descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with _readable(file.path), open(descriptor, "rb", closefd=False) as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _read(file: LandedFile, descriptor: int) -> tuple[Shape, str, Iterator[Row | Bad]]:
    """What a file's header says, or why no line is a row; and its lines."""
    assert file.table.files is not None
    dialect = file.table.files.dialect
    with _readable(file.path):
        records = rows(descriptor, dialect, [column.name for column in file.table.columns if not column.serial][-1])
        shape = _shape(file.table, next(records, None))
    if isinstance(shape, str):
        return ({}, {}), shape, unread(descriptor, dialect, shape)
    return shape, "", records


def _portions(file: LandedFile, records: Iterator[Row | Bad], extra: int) -> Iterator[list[Row | Bad]]:
    """The lines of a file, as many at a time as need little memory. `extra`: characters that bronze adds to each."""
    lines, size = list[Row | Bad](), 0
    with _readable(file.path):
        for line in records:
            lines.append(line)
            size += line.size + extra if isinstance(line, Row) else len(line.raw)
            if len(lines) >= READ_ROWS or size >= READ_CHARACTERS:
                yield lines
                lines, size = [], 0
    if lines:
        yield lines


def _shape(table: Table, header: Row | Bad | None) -> Shape | str:
    """What a file's header says, or why no row can be read."""
    if header is None or isinstance(header, Bad):
        why = header.why if header else ""
        return why if why.startswith(LINE_ENDS) else f"its header: {why}" if why else "it has no header"
    if len(header.texts) > COLUMN_LIMIT:
        return f"its header has {len(header.texts):,} columns, more than {COLUMN_LIMIT:,}"
    # The first column without a name has an empty one, others their numbers.
    names = [name or "" for name in header.texts]
    names = [name or f"#{place}" * ("" in names[: place - 1]) for place, name in enumerate(names, 1)]
    wanted = {column.name: column for column in table.columns if not column.serial}
    # A name that no contract has is not shown: a file without a header has a row in its place.
    twice = {name if name in wanted else "a name" for name, times in Counter(names).items() if times > 1}
    wrong = [f"has {name} twice" for name in sorted(twice)]
    alike = {name.strip().casefold() for name in names}
    missing = [name for name, column in wanted.items() if name not in names and not column.optional]
    wrong += [
        f"has no {name}{', but in other letters or with blanks' * (name.casefold() in alike)}" for name in missing
    ]
    if wrong:
        return f"its header {', '.join(wrong)}"
    places = {name: index for index, name in enumerate(names)}
    others = {name: place for name, place in places.items() if name not in wanted}
    if any(len(name) > NAME_LIMIT or UNSHOWN.search(name) for name in others):
        return f"its header has a name that is not a line of at most {NAME_LIMIT} characters"
    return {name: place for name, place in places.items() if name in wanted}, others


def _batch(file: LandedFile, shape: Shape, lines: list[Row | Bad], run: int, numbers: list[int]) -> pa.RecordBatch:
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
            made[column.name] = pa.array(numbers, arrow_type(column.type))
        elif (place := columns.get(column.name)) is not None:
            texts = [line.texts[place] if isinstance(line, Row) else None for line in lines]
            made[column.name], unfit = column_of(column.type, column.name in dialect.decimal_comma, texts)
            for index, text in unfit.items():
                rescued[index][column.name] = text
    for index, line in enumerate(lines):
        if isinstance(line, Row) and line.rest:
            rescued[index][REST] = table.columns[-1].name
    extras = (
        {name: line.texts[place] for name, place in others.items()} if isinstance(line, Row) else {} for line in lines
    )
    made |= {
        "_rescued": pa.array(map(_json, rescued), pa.string()),
        "_extra": pa.array(map(_json, extras), pa.string()),
        "_source_file": pa.repeat(file.name, len(lines)),
        "_source_row": pa.array((line.line for line in lines), pa.int64()),
    }
    return complete(made, schema_of(types_of(table, AUDIT)), len(lines), run)


def _json(values: Mapping[str, str | None]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if values else None
