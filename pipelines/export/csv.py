"""Gold as one CSV file: RFC 4180, UTF-8, in key order, written beside its place and renamed."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from csv import writer
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import accumulate
from operator import or_
from pathlib import Path
from typing import BinaryIO, TypeVar

import duckdb
import pyarrow.parquet as pq

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.points import Point, crash_point
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.core.types import type_of
from pipelines.lake import delta, durable, folders, schema
from pipelines.lake.checksums import Totals, totals
from pipelines.lake.engine import Engine, engine, listed, relation, save
from pipelines.lake.runs import TableRun

WRITERS = min(4, os.cpu_count() or 1)
BLOCK_BYTES = 2**20
RECORD_BYTES, BUFFER_BYTES = 2**24, 2**28  # DuckDB finds no record in more than two buffers
Read = TypeVar("Read")
PG_FLOAT = Path(__file__).with_name("pg_float.sql")


@dataclass(frozen=True)
class Draft:
    """A finished file that does not have its name yet; `rows` and `totals` are what reading it back gave."""

    temporary: Path
    final: Path
    rows: int
    totals: dict[str, Decimal]
    sha256: str

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
    """A CSV to which parts are appended. It knows the hash of its bytes, what reading its parts back gave, and the data
    `files` whose rows it has from the previous CSV."""

    file: Path
    files: frozenset[str] = frozenset()
    rows: int = 0
    totals: dict[str, Decimal] = field(default_factory=dict)
    hash: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def append(self, part: BinaryIO, rows: int, totals: Mapping[str, Decimal]) -> None:
        with folders.storage(f"export {self.file}"), self.file.open("ab") as target:
            while block := part.read(BLOCK_BYTES):
                self.hash.update(block)
                target.write(block)
        self.rows += rows
        self.totals |= {name: self.totals.get(name, Decimal(0)) + total for name, total in totals.items()}


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
    as PostgreSQL prints it. Readable by owner and group. If all new rows come after those of the run `previous`, its
    CSV is copied and they are appended; `appended` hears of the rows of each part. Raises StorageFault.
    """
    final = folders.csv_path(settings, table)
    _make_room(final)
    with folders.beside(final) as temporary:
        csv = (_copied(settings, table, files, previous, temporary) if previous else None) or _begun(table, temporary)
        appended(csv.rows)
        with folders.scratch(settings.gold_path, "export") as scratch:
            _append_files(csv, table, [file for file in files if file not in csv.files], scratch, appended)
        with folders.storage(f"export {temporary}"):
            temporary.chmod(0o640)
        durable.begin([temporary])
        yield Draft(temporary, final, csv.rows, csv.totals, csv.hash.hexdigest())


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


def _begun(table: Table, target: Path) -> GrowingCsv:
    """A CSV that has its header."""
    csv = GrowingCsv(target)
    with folders.storage(f"export {target}"):
        with target.open("w", encoding="utf-8", newline="") as file:
            writer(file, lineterminator="\n").writerow(exported(table))
        csv.hash.update(target.read_bytes())
    return csv


def _copied(settings: Settings, table: Table, files: list[str], previous: TableRun, target: Path) -> GrowingCsv | None:
    """A copy of the previous CSV; None if that is not there any more, or if not all new rows come after its rows."""
    final = folders.csv_path(settings, table)
    old = frozenset(delta.file_paths(folders.table_path(settings.gold_path, table), previous.version))
    first_segments = accumulate(map(frozenset, _segments(table, files)), or_)
    if not final.exists() or old not in first_segments:
        return None
    csv = GrowingCsv(target, old)
    with folders.storage(f"export {final}"), final.open("rb") as file:
        csv.append(file, previous.rows_out, previous.totals)
    return csv if csv.hash.hexdigest() == previous.csv_sha256 else None


def _append_files(
    csv: GrowingCsv, table: Table, files: list[str], scratch: Path, appended: Callable[[int], object]
) -> None:
    """Writes segments of data files side by side, then appends them in the order of their keys."""
    segments = _segments(table, files)
    at_once = max(1, min(WRITERS, len(segments)))
    engines: list[Engine] = []
    parts = [csv.file.with_suffix(f".{number}") for number, _ in enumerate(segments)]
    with ThreadPoolExecutor(at_once) as pool:

        def write(files: list[str], part: Path) -> Totals:
            what = f"export {csv.file.parents[1]}: writing {table.name}"
            with engine(what, scratch, share=at_once) as connection:
                engines.append(connection)
                _copy(table, files, part, connection)
            crash_point(Point.CSV_WRITTEN)
            return read_back(table, part)

        try:
            writing = [pool.submit(write, segment, part) for segment, part in zip(segments, parts, strict=True)]
            for future, part in zip(writing, parts, strict=True):
                written = future.result()
                with folders.storage(f"export {part}"), part.open("rb") as records:
                    csv.append(records, written.rows, written.sums)
                appended(written.rows)
                part.unlink()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for connection in engines:
                connection.interrupt()
            raise


def _segments(table: Table, files: list[str]) -> list[list[str]]:
    """The files in groups, in order, so that all keys of a group come after those of the previous group."""
    spans = [(span, file) for file in files if (span := _span(table, file))]
    if len(spans) < len(files):
        return [files]
    groups, end = list[list[str]](), -math.inf
    for (least, greatest), file in sorted(spans):
        if least > end:
            groups.append([])
        groups[-1].append(file)
        end = max(end, greatest)
    return groups


def _span(table: Table, file: str) -> tuple[int, int] | None:
    """The least and the greatest first key of a file, as its footer has them; None if that does not say."""
    if table[table.keys[0]].type not in ("bigint", "integer", "smallint"):
        return None
    with folders.storage(file):
        footer = pq.read_metadata(file)
    column = footer.schema.to_arrow_schema().get_field_index(table.keys[0])
    statistics = [footer.row_group(group).column(column).statistics for group in range(footer.num_row_groups)]
    if not statistics or not all(group and group.has_min_max for group in statistics):
        return None
    return min(group.min for group in statistics), max(group.max for group in statistics)


def _copy(table: Table, files: list[str], target: Path, connection: Engine) -> None:
    """Writes the records of data files in the order of their keys. A single file that has this order is not sorted."""
    keys = listed(table.keys)
    types = {name: type_of(kind) for name, kind in exported(table).items()}
    shown = ", ".join(kind.csv.format(identifier(name)) for name, kind in types.items())
    if any(kind.is_float for kind in types.values()):
        connection.execute(PG_FLOAT.read_text("utf-8"))
    dialect = "FORMAT csv, HEADER false, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '', NEW_LINE '\\n'"
    dialect += ", USE_TMP_FILE false"  # it would be open to all users
    back = f"SELECT ({keys}) <= lag(({keys})) OVER () AS back FROM read_parquet($files)"
    unsorted = connection.execute(f"SELECT 1 FROM ({back}) WHERE back LIMIT 1", {"files": files}).fetchone()
    order = f" ORDER BY {keys}" if unsorted or len(files) > 1 else ""
    connection.execute(
        f"COPY (SELECT {shown} FROM read_parquet($files){order}) TO $target ({dialect})",
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
