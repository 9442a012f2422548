"""Gold as one CSV file: RFC 4180, UTF-8, in key order, written beside its place and renamed."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from csv import writer
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import partial
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, TypeVar

import duckdb

from conf.contract import Table, is_summed
from conf.settings import Settings
from pipelines.core.errors import StorageFault
from pipelines.core.identity import software
from pipelines.core.points import Point, crash_point
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.core.types import type_of
from pipelines.lake import durable, folders, schema
from pipelines.lake.checksums import Totals, totals
from pipelines.lake.engine import Engine, engine, listed, relation, save
from pipelines.lake.layout import Span, spans
from pipelines.lake.runs import CsvPart, TableRun

BLOCK_BYTES = 2**20
DIGEST = partial(hashlib.blake2b, digest_size=32)  # of a part: half the time of SHA-256 where no instruction makes that
RECORD_BYTES, BUFFER_BYTES = 2**24, 2**28  # DuckDB finds no record in more than two buffers
Read = TypeVar("Read")
PG_FLOAT = Path(__file__).with_name("pg_float.sql")


@dataclass(frozen=True)
class Draft:
    """A finished file that does not have its name yet; `rows` and `totals` are what reading it back gave, in the run
    that wrote a part."""

    temporary: Path
    final: Path
    rows: int
    totals: dict[str, Decimal]
    sha256: str
    parts: tuple[CsvPart, ...] = ()

    @contextmanager
    def published(self) -> Iterator[None]:
        """Gives the file its name in one step: readers see the earlier file or this one. If the context fails, the
        earlier file gets the name back."""
        earlier = self.temporary.with_suffix(".old")
        try:
            with folders.storage(f"export {self.final}"):
                with suppress(OSError):  # no file yet, or a file system without links
                    earlier.hardlink_to(self.final)
                durable.finish([self.temporary])
                durable.rename(self.temporary, self.final)
            yield
        except BaseException:
            with suppress(OSError):
                durable.rename(earlier, self.final)
            raise
        finally:
            earlier.unlink(missing_ok=True)


@dataclass
class GrowingCsv:
    """A CSV to which parts are appended, and the hash of its bytes. `recorded`: the parts of the `previous` CSV and
    where they begin, by the fingerprint of their data files."""

    file: Path
    previous: Path
    recorded: dict[str, tuple[int, CsvPart]] = field(default_factory=dict)
    parts: list[CsvPart] = field(default_factory=list)
    hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def copy(self, key: str) -> bool:
        """Appends a part of the previous CSV; nothing, if that has other bytes now or cannot be read."""
        (start, part), before = self.recorded[key], self.hash.copy()
        with folders.storage(f"export {self.file}"):
            size = self.file.stat().st_size
            with suppress(OSError), self.previous.open("rb") as file:
                file.seek(start)
                if self.append(file, part.bytes) == part.digest:
                    self.parts.append(part)
                    return True
            os.truncate(self.file, size)
        self.hash = before
        return False

    def append(self, source: BinaryIO, length: int) -> str:
        """Appends the next bytes of a file, at most so many. Their hash, which is made beside that of the whole CSV."""
        digest = DIGEST()
        with self.file.open("ab") as target, ThreadPoolExecutor(1) as beside:
            while block := source.read(min(length, BLOCK_BYTES)):
                hashing = beside.submit(digest.update, block)
                self.hash.update(block)
                target.write(block)
                length -= len(block)
                hashing.result()
        return digest.hexdigest()


@contextmanager
def draft(
    settings: Settings,
    table: Table,
    files: list[str],
    previous: TableRun | None = None,
    appended: Callable[[int], object] = lambda _: None,
) -> Iterator[Draft]:
    """Writes a table's data files as one CSV beside its place; it is gone afterwards, unless it was published.

    Header, the columns that do not start with `_`, ordered by key; comma, LF, NULL empty and empty text `""`, all else
    as PostgreSQL prints it. Readable by owner and group. Parts of the CSV of the run `previous` are copied if they have
    the records of the same files; `appended` hears of the rows of each part. Raises StorageFault.
    """
    final = folders.csv_path(settings, table)
    _make_room(final)
    with folders.beside(final) as temporary:
        csv = _begun(table, temporary, final, previous.csv_parts if previous else ())
        with folders.scratch(settings.gold_path, "export") as scratch:
            _append_files(csv, table, files, scratch, appended)
        with folders.storage(f"export {temporary}"):
            temporary.chmod(0o640)
        durable.begin([temporary])
        written = _totals(table, csv.parts)
        yield Draft(temporary, final, written.rows, written.sums, csv.hash.hexdigest(), tuple(csv.parts))


@contextmanager
def parquet_draft(settings: Settings, table: Table, files: list[str]) -> Iterator[Draft]:
    """The same as one Parquet file: all columns but those that start with `_`, in key order. Raises StorageFault."""
    final = folders.csv_path(settings, table).with_suffix(".parquet")
    what, kinds = f"export {final}", exported(table)
    _make_room(final)
    with folders.beside(final) as temporary, folders.scratch(settings.gold_path, "export") as scratch:
        with engine(what, scratch) as connection:
            rows = relation(files, schema.types_of(table, {}))
            save(connection, f"(SELECT {listed(kinds)} FROM {rows} ORDER BY {listed(table.keys)})", temporary)
            written = totals(connection, relation([str(temporary)], kinds), kinds)
        with folders.storage(what):
            temporary.chmod(0o640)
        durable.begin([temporary])
        yield Draft(temporary, final, written.rows, written.sums, folders.sha256(temporary))


def _make_room(final: Path) -> None:
    with folders.storage(f"export folder {final.parent}"):
        durable.make_folder(final.parent)


def _header(table: Table) -> bytes:
    line = StringIO()
    writer(line, lineterminator="\n").writerow(exported(table))
    return line.getvalue().encode()


def _placed(header: bytes, parts: Sequence[CsvPart]) -> tuple[list[tuple[int, CsvPart]], int]:
    """The parts of a CSV, each with its first byte; and the end of the last."""
    *starts, end = accumulate((part.bytes for part in parts), initial=len(header))
    return [*zip(starts, parts, strict=True)], end


def _begun(table: Table, target: Path, previous: Path, parts: Sequence[CsvPart]) -> GrowingCsv:
    """A CSV that has its header. It may copy these parts of the previous CSV, if that has their size."""
    csv, header = GrowingCsv(target, previous), _header(table)
    with folders.storage(f"export {target}"):
        target.write_bytes(header)
        csv.hash.update(header)
    placed, end = _placed(header, parts)
    with suppress(OSError):
        if previous.stat().st_size == end:
            csv.recorded = {part.files: (start, part) for start, part in placed}
    return csv


def _append_files(
    csv: GrowingCsv, table: Table, files: list[str], scratch: Path, appended: Callable[[int], object]
) -> None:
    """Appends the spans of data files in the order of their keys: those that the previous CSV has are copied, while
    others are written side by side."""
    known = {_fingerprint(table, span): span for span in spans(table, files)}
    missing = [key for key in known if key not in csv.recorded]

    def write(key: str, connection: Engine) -> tuple[Path, Totals]:
        part = csv.file.with_suffix(f".{key}")
        _copy(table, known[key], part, connection)
        crash_point(Point.CSV_WRITTEN)
        return part, read_back(table, part)

    works = [partial(write, key) for key in missing]
    with engine(f"export {csv.file.parents[1]}: writing {table.name}", scratch) as db, db.side_by_side(works) as begun:
        writing = dict(zip(missing, begun, strict=True))
        for key in known:
            if key in writing or not csv.copy(key):
                part, written = writing[key].result() if key in writing else write(key, db)
                with folders.storage(f"export {part}"), part.open("rb") as records:
                    size = part.stat().st_size
                    digest = csv.append(records, size)
                csv.parts.append(CsvPart(key, size, written.rows, (*map(str, written.sums.values()),), digest))
                part.unlink()
            appended(csv.parts[-1].rows)


def _fingerprint(table: Table, span: Span) -> str:
    """The fingerprint of a span, its ends and the names of its files, and of the software, which prints the records."""
    names = sorted(Path(file).name for file in span.files)
    return hashlib.sha256("\n".join([software(table.domain), str(span.ends), *names]).encode()).hexdigest()[:16]


def _digest(file: Path, start: int, length: int) -> str:
    """The hash of a part of a file, as the record of a CSV has it. Raises OSError."""
    digest = DIGEST()
    with file.open("rb") as part:
        part.seek(start)
        while block := part.read(min(length, BLOCK_BYTES)):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest()


def is_current(settings: Settings, table: Table, table_run: TableRun) -> bool:
    """Whether the CSV is there and has what a run wrote; its parts are looked at side by side."""
    final, header, parts = folders.csv_path(settings, table), _header(table), table_run.csv_parts
    try:
        if not parts:
            return folders.sha256(final) == table_run.csv_sha256
        placed, end = _placed(header, parts)
        with final.open("rb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            if file.read(len(header)) != header or final.stat().st_size != end:
                return False
            return all(pool.map(lambda place: _digest(final, place[0], place[1].bytes) == place[1].digest, placed))
    except (OSError, StorageFault):
        return False


def _totals(table: Table, parts: Sequence[CsvPart]) -> Totals:
    summed = (name for name, kind in exported(table).items() if is_summed(kind))
    columns = zip(summed, zip(*(part.sums for part in parts), strict=True), strict=False)  # there may be no part
    with localcontext(prec=76):
        sums = {name: sum(map(Decimal, values), Decimal(0)) for name, values in columns}
    return Totals(sum(part.rows for part in parts), sums)


def _copy(table: Table, span: Span, target: Path, connection: Engine) -> None:
    """Writes the records of a span in the order of their keys. A single file that has this order is not sorted."""
    keys, files = listed(table.keys), list(span.files)
    rows = "read_parquet($files)"
    if span.ends:
        rows += f" WHERE {identifier(table.keys[0])} BETWEEN {span.ends[0]} AND {span.ends[1]}"
    types = {name: type_of(kind) for name, kind in exported(table).items()}
    shown = ", ".join(kind.csv.format(identifier(name)) for name, kind in types.items())
    if any(kind.is_float for kind in types.values()):
        connection.execute(PG_FLOAT.read_text("utf-8"))
    dialect = "FORMAT csv, HEADER false, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '', NEW_LINE '\\n'"
    dialect += ", USE_TMP_FILE false"  # it would be open to all users
    order = f" ORDER BY {keys}"
    if len(files) == 1:
        back = f"SELECT ({keys}) <= lag(({keys})) OVER () AS back FROM {rows}"
        order *= bool(connection.execute(f"SELECT 1 FROM ({back}) WHERE back LIMIT 1", {"files": files}).fetchone())
    connection.execute(
        f"COPY (SELECT {shown} FROM {rows}{order}) TO $target ({dialect})",
        {"files": files, "target": str(target)},
    )


def exported(table: Table) -> dict[str, str]:
    """The columns of the file: name to Spark SQL type."""
    return {column.name: column.type for column in table.columns if not column.name.startswith("_")}


def read_back(table: Table, file: Path) -> Totals:
    """What a reader finds in a CSV without a header: the number of its records, the sums of its amounts."""
    with engine(f"export {file.parents[1]}: reading {table.name} back") as db:
        return of_any_length(
            file, lambda most: totals(db, records_of(table, file, most, header=False), exported(table))
        )


def of_any_length(file: Path, read: Callable[[int], Read]) -> Read:
    """What `read` makes of a CSV when a record may have so many bytes: few at first, since they are kept in memory."""
    most = RECORD_BYTES
    while True:
        try:
            return read(most)
        except duckdb.InvalidInputException as error:
            size = file.stat().st_size
            if most > size or "Maximum line size" not in str(error):
                raise
            most = min(4 * most, size + 1)


def records_of(table: Table, file: Path, most: int, header: bool = True) -> str:
    """SQL that reads a CSV, every cell as text, an empty cell as null; a record has at `most` so many bytes."""
    kinds = ", ".join(f"{duckdb_literal(name)}: 'VARCHAR'" for name in exported(table))
    dialect = (
        f"header = {header}, delim = ',', quote = '\"', escape = '\"', new_line = '\\n', allow_quoted_nulls = false"
    )
    # One thread: several would look for the ends of records, and may take a line break inside a text for one.
    dialect += f", parallel = false, max_line_size = {most}, buffer_size = {max(most, BUFFER_BYTES)}"
    return f"read_csv({duckdb_literal(str(file))}, auto_detect = false, {dialect}, columns = {{{kinds}}})"
