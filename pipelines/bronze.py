"""Bronze's job: copies the source's tables under one snapshot, as Parquet files and one Delta commit per table.

Readers are threads of this process: ADBC and pyarrow leave the interpreter free while they work. Each reads one range
of a table's pages in the snapshot that the control connection exported.
"""

import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_manager as adbc
import adbc_driver_postgresql
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.contract import Table
from conf.settings import Postgres, Settings
from pipelines import lake
from pipelines.arrow import arrow_type
from pipelines.errors import SourceFault
from pipelines.lake import TableRun
from pipelines.reading import Reading, natural_type, read_as, select_list
from pipelines.report import Report
from pipelines.source import BEGIN, PIN, Relation, Snapshot, describe, dsn, literal, reason

AUDIT = {
    "_rescued": ("string", "What a column could not hold: JSON, column to the source's text"),
    "_batch": ("bigint", "Bronze run"),
}
RANGE_BYTES = 64 * 2**20
READERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Plan:
    """How one table is read: its SQL without a range, and the schema it gives; columns the source lacks are null."""

    table: Table
    relation: Relation
    sql: str
    schema: pa.Schema


@dataclass(frozen=True)
class Part:
    """One Parquet file that a reader wrote: its name in the table's folder, and its rows."""

    name: str
    rows: int


def plan(table: Table, relation: Relation) -> Plan:
    """Every declared column as its contract's type, then the source's other columns as their own. Raises SourceFault
    naming each declared column that is missing or of another family."""
    found = {column.name: column for column in relation.columns}
    problems = []
    readings: dict[str, Reading] = {}
    fields = []
    for column in table.columns:
        place = f"{relation.schema}.{relation.name}.{column.name}"
        fields.append(_field(column.name, column.type, column.comment))
        if column.name not in found:
            if not column.optional:
                problems.append(f"column {place} is missing")
        elif (reading := read_as(found[column.name], column.type)) is None:
            problems.append(f"column {place} is {found[column.name].type}, which cannot become {column.type} exactly")
        else:
            readings[column.name] = reading
    for extra in relation.columns:
        if extra.name in AUDIT:
            problems.append(
                f"column {relation.schema}.{relation.name}.{extra.name} has a name that bronze needs; rename it"
            )
        elif extra.name not in {column.name for column in table.columns}:
            target = natural_type(extra)
            fields.append(_field(extra.name, target, ""))
            readings[extra.name] = read_as(extra, target) or Reading("NULL")
    problems += [
        f"column {relation.schema}.{relation.name}.{column.name}: no right to read it"
        for column in relation.columns
        if not column.readable
    ]
    if problems:
        raise SourceFault("; ".join(problems))
    fields += [_field(name, kind, comment) for name, (kind, comment) in AUDIT.items()]
    return Plan(table, relation, f"SELECT {select_list(readings)} FROM {relation.sql}", pa.schema(fields))


def plans(snapshot: Snapshot, schema: str, tables: tuple[Table, ...]) -> list[Plan]:
    """The plans of all tables. Raises one SourceFault that names everything that is missing or does not convert."""
    made, problems = [], []
    for table in tables:
        relation = describe(snapshot.connection, schema, table.source_name)
        if relation is None:
            problems.append(f"table {schema}.{table.source_name} is missing")
            continue
        try:
            made.append(plan(table, relation))
        except SourceFault as fault:
            problems.append(str(fault))
    if problems:
        raise SourceFault(f"the source is not what the contracts say: {'; '.join(problems)}")
    return made


def ranges(relation: Relation) -> list[str]:
    """Conditions on `ctid` that cut the table into page ranges; the last one is open, so that no row is left out."""
    parts = max(1, -(-relation.size // RANGE_BYTES))
    if parts > 1:
        parts = -(-parts // READERS) * READERS
    bounds = [relation.pages * part // parts for part in range(1, parts)]
    lower = ["", *(f"ctid >= '({page},0)'" for page in bounds)]
    upper = [*(f"ctid < '({page},0)'" for page in bounds), ""]
    return [" AND ".join(filter(None, both)) for both in zip(lower, upper, strict=True)]


def load(
    settings: Settings, server: Postgres, snapshot: Snapshot, tables: tuple[Table, ...], run: int, report: Report
) -> Iterator[TableRun]:
    """Reads all tables, commits each when its last range is in. Nothing is written before all of them are checked."""
    todo = plans(snapshot, settings.schema_name, tables)
    stop = threading.Event()
    reader = _Reader(server, snapshot.exported, run, stop, report)
    started = time.monotonic()
    with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as pool:
        futures: dict[Future[Part], Plan] = {}
        parts: dict[str, list[Part]] = {}
        waiting: dict[str, int] = {}
        for one in sorted(todo, key=lambda one: -one.relation.size):
            path = lake.table_path(settings.bronze_path, one.table)
            lake.version(path)  # refuses a folder that is not ours
            with lake.storage(f"table {path}"):
                path.mkdir(parents=True, exist_ok=True)
            conditions = ranges(one.relation)
            waiting[one.table.name], parts[one.table.name] = len(conditions), []
            for condition in conditions:
                futures[pool.submit(reader.read, one, condition, path)] = one
        try:
            for future in as_completed(futures):
                one = futures[future]
                name = one.table.name
                parts[name].append(future.result())
                waiting[name] -= 1
                if not waiting[name]:
                    yield _commit(settings, one, parts[name], started)
        except BaseException:
            stop.set()
            reader.cancel()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            reader.close()


def _commit(settings: Settings, one: Plan, parts: list[Part], started: float) -> TableRun:
    path = lake.table_path(settings.bronze_path, one.table)
    files = sorted((part.name, part.rows) for part in parts if part.rows)
    rows = sum(rows for _, rows in files)
    version = lake.commit_files(path, one.table, one.schema, files)
    return TableRun(one.table.name, version, rows, rows, seconds=time.monotonic() - started)


def _field(name: str, kind: str, comment: str) -> pa.Field:
    return pa.field(name, arrow_type(kind), metadata={"comment": comment} if comment else None)


class _Reader:
    """Reads ranges; holds one connection per thread, each in the exported snapshot."""

    def __init__(self, server: Postgres, exported: str, run: int, stop: threading.Event, report: Report) -> None:
        self._server, self._exported, self._run, self._stop, self._report = server, exported, run, stop, report
        self._local = threading.local()
        self._connections: list[adbc.AdbcConnection] = []
        self._databases: list[adbc.AdbcDatabase] = []

    def read(self, one: Plan, condition: str, path: Path) -> Part:
        """One range of one table as one Parquet file. Raises SourceFault where the source fails."""
        name = f"part-{self._run:05d}-{uuid.uuid4().hex}.parquet"
        sql = one.sql + (f" WHERE {condition}" if condition else "")
        rows = 0
        try:
            with (
                self._query(sql) as batches,
                pq.ParquetWriter(path / name, one.schema, compression="zstd", compression_level=1) as writer,
            ):
                for batch in batches:
                    if self._stop.is_set():
                        break
                    writer.write_batch(shaped(batch, one.schema, self._run))
                    rows += batch.num_rows
                    self._report.progress("bronze", one.table.name, batch.num_rows)
        except adbc.Error as error:
            raise SourceFault(
                f"reading {one.relation.schema}.{one.relation.name} from {self._server.address}: {reason(error)}"
            ) from error
        except OSError as error:
            # Arrow says what ADBC says while it streams as an OSError, too.
            if "[libpq]" in str(error):
                raise SourceFault(
                    f"reading {one.relation.schema}.{one.relation.name} from {self._server.address}: {reason(error)}"
                ) from error
            with lake.storage(f"table {path}"):
                raise
        if not rows:
            (path / name).unlink()
        return Part(name, rows)

    @contextmanager
    def _query(self, sql: str) -> Iterator[pa.RecordBatchReader]:
        with closing(adbc.AdbcStatement(self._connection())) as statement:
            statement.set_sql_query(sql)
            stream, _ = statement.execute_query()
            with pa.RecordBatchReader._import_from_c(stream.address) as batches:
                yield batches

    def _connection(self) -> adbc.AdbcConnection:
        connection: adbc.AdbcConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            database = adbc.AdbcDatabase(driver=adbc_driver_postgresql._driver_path(), uri=dsn(self._server))
            connection = adbc.AdbcConnection(database)
            self._connections.append(connection)
            self._databases.append(database)
            for sql in (PIN, BEGIN, f"SET TRANSACTION SNAPSHOT{literal(self._exported)}"):
                with closing(adbc.AdbcStatement(connection)) as statement:
                    statement.set_sql_query(sql)
                    statement.execute_update()
            self._local.connection = connection
        return connection

    def cancel(self) -> None:
        """Ends the queries that are under way, so that their readers stop waiting."""
        for connection in self._connections:
            with suppress(adbc.Error):
                connection.cancel()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        for database in self._databases:
            database.close()


def shaped(batch: pa.RecordBatch, schema: pa.Schema, run: int) -> pa.RecordBatch:
    """The batch as `schema` has it: columns the source lacks are null, `_batch` is the run."""
    columns: list[pa.Array] = []
    for field in schema:
        if field.name == "_batch":
            columns.append(pa.repeat(pa.scalar(run, field.type), batch.num_rows))
        elif (index := batch.schema.get_field_index(field.name)) < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
        else:
            column = batch.column(index)
            storage = column.storage if isinstance(column, pa.ExtensionArray) else column
            columns.append(storage if storage.type == field.type else pc.cast(storage, field.type))
    return pa.record_batch(columns, schema=schema)
