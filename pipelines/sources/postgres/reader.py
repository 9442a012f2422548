"""Reads ranges of source tables into Parquet files: ADBC in, pyarrow out, any number of threads, one snapshot."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import adbc_driver_manager as adbc
import adbc_driver_postgresql
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager._reader import AdbcRecordBatchReader

from conf.contract import Table, is_summed
from conf.settings import Postgres
from pipelines.core.console import Report
from pipelines.core.errors import BusyFault, SourceFault, TransientFault
from pipelines.core.points import Point, crash_point
from pipelines.core.sql import postgres_literal
from pipelines.lake import delta, folders
from pipelines.lake.schema import complete, scaled, schema_of, writer_of
from pipelines.sources.postgres.connection import hang_up, is_at_work, opened, source_faults
from pipelines.sources.postgres.snapshot import Relation, Snapshot
from pipelines.sources.postgres.transaction import SNAPSHOT, begin, pin
from pipelines.sources.postgres.types import Reading, select_list

POSTGRES_AUDIT = {"_rescued": "string", "_batch": "bigint"}

SILENCE_SECONDS = 30.0  # without a row; then the server is asked

# By itself the driver would ask for all types and columns of the database, outside of our transactions; what it reads
# are PostgreSQL's own types.
DRIVER = {"driver": adbc_driver_postgresql._driver_path(), "adbc.postgresql.type_resolver_mode": "builtin"}

FULL_SECONDS = 1  # in which a connection that was closed is free for another one


@dataclass(frozen=True)
class ReadPlan:
    """How one table is read: the reading of each column that the source has, and the types (Spark SQL) of all columns
    that bronze has; those that the source lacks are null."""

    table: Table
    relation: Relation
    readings: dict[str, Reading]
    types: dict[str, str]


@dataclass(frozen=True)
class WrittenFile:
    """One Parquet file that a reader wrote: its name in the table's folder, its rows, and when the reader began."""

    name: str
    rows: int
    started: float


class Watchdog:
    """Tells a slow server from one that will never answer: TCP does not say so while both ends keep the line open. Asks
    a silent server, on a new connection, whether it works for us; if not, ends our connections to it."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._waiting = 0
        self._last_heard = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A query that waits for the server while the context lasts. Its begin and its end count as heard."""
        self._change_waiting(1)
        try:
            yield
        finally:
            self._change_waiting(-1)

    def close(self) -> None:
        self._closed.set()

    def _change_waiting(self, by: int) -> None:
        with self._lock:
            self._waiting += by
            self._last_heard = time.monotonic()

    def _watch(self) -> None:
        while not self._closed.wait(SILENCE_SECONDS / 10):
            asked = time.monotonic()
            if not self._waiting or asked - self._last_heard <= SILENCE_SECONDS:
                continue
            at_work = is_at_work(self._server)
            # An answer may come while we ask; then nothing is at work, and nothing is wrong.
            if at_work or self._last_heard > asked or self._closed.is_set():
                self._last_heard = time.monotonic()
            else:
                hang_up(self._server)


class Reader:
    """Reads ranges of tables for any number of threads, on as many connections as the server gives, each in the
    exported snapshot."""

    def __init__(self, server: Postgres, exported: str, run: int, report: Report) -> None:
        self._server, self._exported, self._run, self._report = server, exported, run, report
        self._stopped = threading.Event()
        self.watchdog = Watchdog(server)
        self._lock = threading.Lock()
        self._database: adbc.AdbcDatabase | None = None
        self._connections: list[adbc.AdbcConnection] = []
        self._idle = SimpleQueue[adbc.AdbcConnection]()
        self._is_full = False

    def read(self, plan: ReadPlan, condition: str, path: Path) -> WrittenFile:
        """Reads one range of a table into one Parquet file. Raises SourceFault when the source fails."""
        name = delta.part_name(self._run)
        sql = f"SELECT {select_list(plan.readings)} FROM {plan.relation.sql}"
        sql += f" WHERE {condition}" if condition else ""
        rows, is_complete, started = 0, False, time.monotonic()
        place = f"{plan.relation.schema}.{plan.relation.name} from {self._server.address}"
        reading = source_faults(f"reading {place}", self._server, adbc.Error)
        try:
            with reading, self._query(sql) as batches, writer_of(path / name, schema_of(plan.types)) as writer:
                while not self._stopped.is_set():
                    with self.watchdog.waiting():
                        batch = next(batches, None)
                    if batch is None:
                        break
                    crash_point(Point.BATCH_SHAPED)
                    writer.write_batch(shaped(batch, writer.schema, self._run))
                    rows += batch.num_rows
                    self._report.progress("bronze", plan.table.name, batch.num_rows)
                is_complete = not self._stopped.is_set()
        except OSError:
            with folders.storage(f"table {path}"):
                raise
        finally:
            # Empty, or incomplete: an executor may end after its run has cleared away what it had seen.
            if not rows or not is_complete:
                (path / name).unlink(missing_ok=True)
        return WrittenFile(name, rows, started)

    @contextmanager
    def _query(self, sql: str) -> Iterator[Iterator[pa.RecordBatch]]:
        with self.watchdog.waiting():
            connection = self._connection()
        with self._closed_on_error(connection):
            with self.watchdog.waiting():
                pin(partial(_rows, connection))
            with closing(adbc.AdbcStatement(connection)) as statement:
                statement.set_sql_query(sql)
                with self.watchdog.waiting():
                    stream, _ = statement.execute_query()
                # Arrow's own reader drops the SQLSTATE of an error in the middle of a stream.
                with closing(AdbcRecordBatchReader._import_from_c(stream.address)) as batches:
                    yield iter(batches)
        self._idle.put(connection)

    @contextmanager
    def _closed_on_error(self, connection: adbc.AdbcConnection) -> Iterator[None]:
        """A transaction in which a query failed is of no use; others get its connection."""
        try:
            yield
        except BaseException:
            self._connections.remove(connection)
            with suppress(adbc.Error):
                connection.close()
            raise

    def _connection(self) -> adbc.AdbcConnection:
        """A connection that no other thread has: one more if the server has one left for us. Raises SourceFault."""
        full_since = time.monotonic()
        while not self._stopped.is_set():
            with suppress(Empty):
                return self._idle.get(timeout=FULL_SECONDS / 10 if self._is_full else 0)
            if self._is_full and self._connections:
                continue
            try:
                with self._lock:  # of all threads: it connects, too
                    if not self._stopped.is_set():  # the server did not answer another thread
                        return self._connected()
            except BusyFault:
                self._is_full = True
                if not self._connections and time.monotonic() - full_since > FULL_SECONDS:
                    raise
        raise SourceFault(f"PostgreSQL {self._server.address}: the run stops")

    def _connected(self) -> adbc.AdbcConnection:
        place = f"PostgreSQL {self._server.address}"
        with source_faults(place, self._server, adbc.Error):
            self._database = self._database or opened(self._server, lambda uri: adbc.AdbcDatabase(uri=uri, **DRIVER))
            connection = adbc.AdbcConnection(self._database)
        self._connections.append(connection)
        how = f"{SNAPSHOT}; SET TRANSACTION SNAPSHOT{postgres_literal(self._exported)}"
        try:
            with self._closed_on_error(connection):
                begin(partial(_rows, connection), how, _version(connection))
        except adbc.Error as error:
            raise TransientFault(f"{place}: the snapshot of this run is gone") from error
        return connection

    def stop(self) -> None:
        """Lets each thread end after the batch that it has in hand."""
        self._stopped.set()

    def close(self) -> None:
        with suppress(Empty, adbc.Error), self.watchdog.waiting():
            while not self._stopped.is_set():
                _rows(self._idle.get_nowait(), "COMMIT")  # a pooler keeps it then
        self.watchdog.close()
        for part in (*self._connections, *filter(None, [self._database])):
            with suppress(adbc.Error):
                part.close()  # type: ignore[attr-defined]


def _version(connection: adbc.AdbcConnection) -> int:
    info = connection.get_info([adbc.AdbcInfoCode.VENDOR_VERSION])
    with closing(AdbcRecordBatchReader._import_from_c(info.address)) as batches:
        return next(int(str(value)) for batch in batches for value in batch.column(1).to_pylist())


def _rows(connection: adbc.AdbcConnection, sql: str) -> list[tuple[Any, ...]]:
    """The rows that a statement gives, if it is a SELECT."""
    with closing(adbc.AdbcStatement(connection)) as statement:
        statement.set_sql_query(sql)
        if not sql.startswith("SELECT"):
            statement.execute_update()
            return []
        stream, _ = statement.execute_query()
        with closing(AdbcRecordBatchReader._import_from_c(stream.address)) as batches:
            return [
                row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
            ]


def shaped(batch: pa.RecordBatch, schema: pa.Schema, run: int) -> pa.RecordBatch:
    """What ADBC sent as bronze has it."""
    columns: dict[str, pa.Array] = {}
    for name in {*schema.names} & {*batch.schema.names}:
        kind, column = schema.field(name).type, batch.column(name)
        storage = column.storage if isinstance(column, pa.ExtensionArray) else column
        unscaled = pa.types.is_decimal(kind) and pa.types.is_integer(storage.type)
        columns[name] = scaled(storage, kind) if unscaled else pc.cast(storage, kind)
    return complete(columns, schema, batch.num_rows, run)


@dataclass(frozen=True)
class SourceTotals:
    """A table in the snapshot: its rows, the sums of columns that have one, and the rows written since the last run."""

    rows: int
    sums: dict[str, Decimal]
    newer: int


def source_totals(snapshot: Snapshot, plan: ReadPlan, newer: str, watchdog: Watchdog) -> SourceTotals:
    """Lets the server count a table. `newer`: the SQL condition of the rows written since the last run, "false" for
    none. Raises SourceFault."""
    summed = {name: reading.value for name, reading in plan.readings.items() if is_summed(plan.types[name])}
    items = ["count(*)", "0" if newer == "false" else f"count(*) FILTER (WHERE {newer})"]
    items += [f"coalesce(sum({value}), 0)" for value in summed.values()]
    counting = source_faults(f"counting {plan.relation.schema}.{plan.relation.name}", snapshot.server)
    sql = f"SELECT {', '.join(items)} FROM {plan.relation.sql}"
    with counting, watchdog.waiting():
        ((rows, newer_rows, *sums),) = snapshot.rows(sql)
    return SourceTotals(rows, dict(zip(summed, sums, strict=True)), newer_rows)
