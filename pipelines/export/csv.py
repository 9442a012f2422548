"""Gold as one CSV file: RFC 4180, UTF-8, in key order, written beside its place and renamed."""

import csv
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.points import Point, crash_point
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.core.types import type_of
from pipelines.lake import folders, schema
from pipelines.lake.checksums import Totals, totals
from pipelines.lake.engine import Engine, engine, relation, save

WRITERS = min(4, os.cpu_count() or 1)


BLOCK = 2**20


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
        """Gives the file its name in one step: readers see the old one or the new one.

        If the context fails, the old one gets the name back.
        """
        with folders.storage(f"export {self.final}"):
            old = self.temporary.with_suffix(".old")
            with suppress(OSError):  # no file yet, or a file system without links
                old.hardlink_to(self.final)
            self.temporary.replace(self.final)
        try:
            yield
        except BaseException:
            with suppress(FileNotFoundError):
                old.replace(self.final)
            raise
        finally:
            old.unlink(missing_ok=True)


@dataclass(frozen=True)
class PreviousCsv:
    """The CSV that a table's last run left, and what it is of: `files`, `rows`, `totals`, `sha256`."""

    files: frozenset[str]
    rows: int
    totals: dict[str, Decimal]
    sha256: str


@contextmanager
def draft(settings: Settings, table: Table, files: list[str], before: PreviousCsv | None = None) -> Iterator[Draft]:
    """Writes the table's data files as one CSV beside its place; what was not published is gone afterwards.

    Header, the columns that do not start with `_`, ordered by key; comma, LF, NULL empty and empty text `""`,
    all else as PostgreSQL prints it. Readable by owner and group. Where the CSV is that of `before`,
    and all other rows come after its rows, it is copied and they are written behind. Raises StorageFault.
    """
    final = folders.csv_path(settings, table)
    _make_room(final)
    with folders.beside(final) as temporary:
        whole = (_continued(table, files, before, final, temporary) if before else None) or _begun(table, temporary)
        with folders.scratch(settings.gold_path, "export") as scratch:
            whole = _write(table, [file for file in files if file not in whole.files], whole, final, scratch)
        with folders.storage(f"export {temporary}"), temporary.open("rb") as file:
            os.fsync(file.fileno())
            temporary.chmod(0o640)
        yield Draft(temporary, final, whole.rows, whole.totals, whole.hashed.hexdigest())


@contextmanager
def parquet_draft(settings: Settings, table: Table, files: list[str]) -> Iterator[Draft]:
    """The same as one Parquet file: all columns but those that start with `_`, in key order. Raises StorageFault."""
    final = folders.csv_path(settings, table).with_suffix(".parquet")
    what, names = f"export {final}", ", ".join(map(identifier, exported(table)))
    _make_room(final)
    with folders.beside(final) as temporary, folders.scratch(settings.gold_path, "export") as scratch:
        with engine(what, scratch) as connection:
            rows = relation(files, schema.types_of(table, {}))
            keys = ", ".join(map(identifier, table.keys))
            save(connection, f"(SELECT {names} FROM {rows} ORDER BY {keys})", temporary)
            kinds = {name: table[name].type for name in exported(table)}
            written = totals(connection, relation([str(temporary)], kinds), kinds)
        with folders.storage(what):
            temporary.chmod(0o640)
        yield Draft(temporary, final, written.rows, written.sums, folders.sha256(temporary))


@dataclass
class GrowingCsv:
    """A CSV that grows: its file, the hash of its bytes, and what reading them back gave."""

    file: Path
    hashed: "hashlib._Hash"
    rows: int
    totals: dict[str, Decimal]
    files: frozenset[str] = frozenset()

    def append(self, part: Path, rows: int, sums: dict[str, Decimal]) -> None:
        with folders.storage(f"export {self.file}"), self.file.open("ab") as target, part.open("rb") as source:
            while block := source.read(BLOCK):
                self.hashed.update(block)
                target.write(block)
        self.rows += rows
        for name, total in sums.items():
            self.totals[name] = self.totals.get(name, Decimal(0)) + total


def _make_room(final: Path) -> None:
    with folders.storage(f"export folder {final.parent}"):
        final.parent.mkdir(parents=True, exist_ok=True)


def _begun(table: Table, target: Path) -> GrowingCsv:
    """A CSV that has its header."""
    names = io.StringIO()
    csv.writer(names, lineterminator="\n").writerow(exported(table))
    head = names.getvalue().encode()
    with folders.storage(f"export {target}"):
        target.write_bytes(head)
    return GrowingCsv(target, hashlib.sha256(head), 0, {})


def _continued(table: Table, files: list[str], before: PreviousCsv, final: Path, target: Path) -> GrowingCsv | None:
    """A copy of the CSV of `before`; None where that is not there, or not all other rows come after it."""
    new = [file for file in files if file not in before.files]
    spans = [_span(table, file) for file in (*before.files, *new)]
    if not before.files <= set(files) or None in spans or not final.exists():
        return None
    old = [span for span in spans[: len(before.files)] if span]
    if not old or any(span[0] <= max(last for _, last in old) for span in spans[len(before.files) :] if span):
        return None
    with folders.storage(f"export {target}"):
        target.write_bytes(b"")
    whole = GrowingCsv(target, hashlib.sha256(), 0, {}, before.files)
    whole.append(final, before.rows, before.totals)
    return whole if whole.hashed.hexdigest() == before.sha256 else None


def _write(table: Table, files: list[str], whole: GrowingCsv, final: Path, scratch: Path) -> GrowingCsv:
    """Writes segments side by side, each one's keys after those of the one before, and puts them together."""
    segments = _segments(table, files)
    at_once = max(1, min(WRITERS, len(segments)))
    engines: list[Engine] = []
    with ExitStack() as stack, ThreadPoolExecutor(at_once) as pool:
        parts = [stack.enter_context(folders.beside(final)) for _ in segments]

        def written(files: list[str], part: Path) -> Totals:
            what = f"export {final.parent}: writing {table.name}"
            with engine(what, scratch, share=at_once) as connection:
                engines.append(connection)
                _copy(table, files, part, connection)
            crash_point(Point.CSV_WRITTEN)
            return read_back(table, part)

        try:
            running = [pool.submit(written, some, part) for some, part in zip(segments, parts, strict=True)]
            for future, part in zip(running, parts, strict=True):
                whole.append(part, *future.result())
                part.unlink()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for connection in engines:
                connection.interrupt()
            raise
    return whole


def _segments(table: Table, files: list[str]) -> list[list[str]]:
    """The files in groups, in order, so that all keys of a group come after those of the one before."""
    spans = {file: _span(table, file) for file in files}
    if None in spans.values():
        return [files]
    groups: list[list[str]] = []
    last: Any = None
    for file, span in sorted(spans.items(), key=lambda one: one[1] or (0, 0)):
        assert span is not None
        if groups and span[0] <= last:
            groups[-1].append(file)
        else:
            groups.append([file])
        last = span[1] if last is None else max(last, span[1])
    return groups


def _span(table: Table, file: str) -> tuple[Any, Any] | None:
    """The least and the greatest first key of a file, as its footer has them; None where that does not say."""
    if table[table.keys[0]].type not in ("bigint", "integer", "smallint"):
        return None
    with folders.storage(file):
        footer = pq.read_metadata(file)
    column = footer.schema.to_arrow_schema().get_field_index(table.keys[0])
    found = [footer.row_group(group).column(column).statistics for group in range(footer.num_row_groups)]
    if not found or not all(one and one.has_min_max for one in found):
        return None
    return min(one.min for one in found), max(one.max for one in found)


def _copy(table: Table, files: list[str], target: Path, connection: Engine) -> None:
    """Writes the records of some files, in order; those of a file that is so already are not sorted."""
    keys = ", ".join(map(identifier, table.keys))
    types = {name: type_of(table[name].type) for name in exported(table)}
    shown = ", ".join(kind.csv.format(identifier(name)) for name, kind in types.items())
    if any(kind.is_float for kind in types.values()):
        connection.execute(PG_FLOAT.read_text("utf-8"))
    dialect = "FORMAT csv, HEADER false, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '', NEW_LINE '\\n'"
    dialect += ", USE_TMP_FILE false"  # its own would be open to all
    back = f"SELECT ({keys}) <= lag(({keys})) OVER () AS back FROM read_parquet($files)"
    (unsorted,) = connection.execute(
        f"SELECT coalesce(bool_or(back), false) FROM ({back})", {"files": files}
    ).fetchone() or (True,)
    order = f" ORDER BY {keys}" if unsorted or len(files) > 1 else ""
    connection.execute(
        f"COPY (SELECT {shown} FROM read_parquet($files){order}) TO $target ({dialect})",
        {"files": files, "target": str(target)},
    )


def exported(table: Table) -> list[str]:
    return [column.name for column in table.columns if not column.name.startswith("_")]


def read_back(table: Table, file: Path) -> Totals:
    """Records of a CSV without a header and the sums of its amounts, as a reader of the file finds them."""
    kinds = {name: table[name].type for name in exported(table)}
    with engine(f"export {file.parent}: reading {table.name} back") as connection:
        return totals(connection, records_of(table, file, header=False), kinds)


def records_of(table: Table, file: Path, header: bool = True) -> str:
    """SQL that reads a CSV, every cell as text, an empty cell as null."""
    kinds = ", ".join(f"{duckdb_literal(name)}: 'VARCHAR'" for name in exported(table))
    dialect = (
        f"header = {header}, delim = ',', quote = '\"', escape = '\"', new_line = '\\n', allow_quoted_nulls = false"
    )
    # One thread: several look for the ends of records, and may take a line inside a text for one.
    dialect += ", parallel = false, max_line_size = 16777216"
    return f"read_csv({duckdb_literal(str(file))}, auto_detect = false, {dialect}, columns = {{{kinds}}})"
