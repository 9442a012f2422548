"""Bronze's job: copies the source's tables under one snapshot, as Parquet files and one Delta commit per table.

Readers are threads of this process: ADBC and pyarrow leave the interpreter free while they work. Each reads one range
of a table's pages in the snapshot that the control connection exported.
"""

import difflib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from decimal import Decimal

import psycopg2
from psycopg2.extensions import connection as Connection

from conf.contract import Table, is_summed
from conf.settings import Postgres, Settings
from pipelines import lake
from pipelines.connection import cancel, hang_up, source_fault, unhurried
from pipelines.errors import ContractFault, SourceFault
from pipelines.pg_types import Reading, natural_type, read_as
from pipelines.proof import Built, prove
from pipelines.reader import AUDIT, Part, Plan, Reader
from pipelines.records import Run, TableRun
from pipelines.report import Report
from pipelines.source import Relation, Snapshot, describe
from pipelines.watch import Watch

RANGE_BYTES = 64 * 2**20
READERS = min(4, os.cpu_count() or 1)
CANCEL_SECONDS = 3
Totals = tuple[int, dict[str, Decimal]]  # rows, and the sums of amounts by column


def plan(table: Table, relation: Relation) -> Plan:
    """Every declared column as its contract's type, then the source's other columns as their own. Raises
    ContractFault naming each declared column that is missing or of another family."""
    found = {column.name: column for column in relation.columns}
    declared = {column.name for column in table.columns}
    extras = [column for column in relation.columns if column.name not in declared]
    problems = []
    readings: dict[str, Reading] = {}
    types: dict[str, str] = {}
    for column in table.columns:
        place = f"{relation.schema}.{relation.name}.{column.name}"
        types[column.name] = column.type
        if column.name not in found:
            if not column.optional:
                alike = difflib.get_close_matches(column.name, [extra.name for extra in extras], n=1)
                problems.append(f"column {place} is missing" + (f"; is it {alike[0]} now?" if alike else ""))
        elif (reading := read_as(found[column.name], column.type)) is None:
            problems.append(f"column {place} is {found[column.name].type}, which cannot become {column.type} exactly")
        else:
            readings[column.name] = reading
    taken = {name.lower() for name in (*declared, *AUDIT)}
    for extra in extras:
        if extra.name.lower() in taken:
            place = f"{relation.schema}.{relation.name}.{extra.name}"
            problems.append(
                f"column {place}: bronze has a column of this name, but for case; rename it, or leave it out"
            )
            continue
        taken.add(extra.name.lower())
        types[extra.name] = natural_type(extra)
        reading = read_as(extra, types[extra.name])
        assert reading is not None, "every column can be read as its natural type"
        readings[extra.name] = reading
    problems += [
        f"column {relation.schema}.{relation.name}.{column.name}: no right to read it"
        for column in relation.columns
        if not column.readable
    ]
    if problems:
        raise ContractFault("; ".join(problems))
    return Plan(table, relation, readings, types | AUDIT)


def drift(one: Plan, before: TableRun) -> list[str]:
    """What changed, since the run before, in the columns that no contract names."""
    unnamed = {column.name for column in one.table.columns} | set(AUDIT)
    was = {column.name: column.type for column in before.columns if column.name not in unnamed}
    now = {name: kind for name, kind in one.types.items() if name not in unnamed}
    place = f"column {one.relation.schema}.{one.relation.name}."
    return (
        [f"{place}{name} is new: {kind}" for name, kind in now.items() if name not in was]
        + [f"{place}{name} is gone" for name in was if name not in now]
        + [f"{place}{name} was {was[name]}, is {kind}" for name, kind in now.items() if was.get(name, kind) != kind]
    )


def guaranteed(one: Plan) -> tuple[str, ...]:
    """What the source's constraints promise of numbers: "key", and each column whose reference holds.

    Texts are left out: cleaning may make two of them one.
    """
    table, relation = one.table, one.relation
    exact = {column.name for column in table.columns if column.type != "string"}
    key = ["key"] if relation.primary_key == set(table.keys) <= exact else []
    return tuple(key) + tuple(
        column.name
        for column, reference in table.references
        if column.name in exact
        and (column.name, reference.table.source_name, reference.table.keys[0]) in relation.foreign_keys
    )


def plans(snapshot: Snapshot, schema: str, tables: tuple[Table, ...]) -> list[Plan]:
    """The plans of all tables. Raises one ContractFault that names everything that is missing or does not convert."""
    made, problems = [], []
    for table in tables:
        relation = describe(snapshot.connection, schema, table.source_name)
        if relation is None:
            problems.append(f"table {schema}.{table.source_name} is missing")
            continue
        try:
            made.append(plan(table, relation))
        except ContractFault as fault:
            problems.append(str(fault))
    if problems:
        raise ContractFault(f"the source is not what the contracts say: {'; '.join(problems)}")
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
    settings: Settings,
    server: Postgres,
    snapshot: Snapshot,
    tables: tuple[Table, ...],
    run: int,
    previous: Run | None,
    report: Report,
) -> Iterator[Built]:
    """Reads all tables, proves each when its last range is in. Nothing is written before all of them are checked."""
    todo = plans(snapshot, settings.schema_name, tables)
    _report_drift(settings, todo, previous, report)
    for one in todo:
        lake.make_folder(lake.table_path(settings.bronze_path, one.table))
    stop = threading.Event()
    reader = Reader(server, snapshot.exported, run, stop, report)
    totals: dict[str, Future[Totals]] = {}
    futures: dict[Future[Part], Plan] = {}
    built: set[str] = set()
    with ThreadPoolExecutor(1) as control, ThreadPoolExecutor(READERS, thread_name_prefix="reader") as pool:
        try:
            for one in sorted(todo, key=lambda one: -one.relation.size):
                totals[one.table.name] = control.submit(source_totals, snapshot.connection, one, reader.watch)
                path = lake.table_path(settings.bronze_path, one.table)
                futures |= {pool.submit(reader.read, one, condition, path): one for condition in ranges(one.relation)}
            yield from _as_built(settings, futures, totals, built)
        except BaseException as error:
            stop.set()
            _end((pool, control), server)
            for future, one in futures.items():
                if one.table.name not in built and not future.cancelled() and not future.exception():
                    (lake.table_path(settings.bronze_path, one.table) / future.result().name).unlink(missing_ok=True)
            for counted in totals.values():
                # A failed count ends the snapshot, and with it the readers: it is what went wrong first.
                if isinstance(error, SourceFault) and not counted.cancelled() and (first := counted.exception()):
                    raise first from error
            raise
        finally:
            reader.close()


def _as_built(
    settings: Settings, futures: dict[Future[Part], Plan], totals: dict[str, Future[Totals]], built: set[str]
) -> Iterator[Built]:
    """Each table when its last range is in; `built` has the names of those that were given on."""
    waiting = Counter(one.table.name for one in futures.values())
    parts: dict[str, list[Part]] = {name: [] for name in waiting}
    for future in as_completed(futures):
        name = futures[future].table.name
        parts[name].append(future.result())
        waiting[name] -= 1
        if not waiting[name]:
            yield _built(settings, futures[future], parts[name], totals[name].result())
            built.add(name)


def _end(executors: tuple[ThreadPoolExecutor, ...], server: Postgres) -> None:
    """Waits until no query runs. One may begin after a cancel, so they are cancelled until all have ended; a server
    that does not answer is hung up on."""
    for executor in executors:
        executor.shutdown(wait=False, cancel_futures=True)
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.1):
            cancel(server)

    def leave() -> None:
        while not ended.wait(CANCEL_SECONDS):
            hang_up(server)

    with ThreadPoolExecutor(2) as enders:
        enders.submit(ask)
        enders.submit(leave)
        try:
            for executor in executors:
                executor.shutdown()
        finally:
            ended.set()


def _report_drift(settings: Settings, todo: list[Plan], previous: Run | None, report: Report) -> None:
    before = {table.name: table for table in previous.tables} if previous else {}
    drifted = [text for one in todo if one.table.name in before for text in drift(one, before[one.table.name])]
    if drifted and settings.schema_drift == "freeze":
        allowed = "set LAKEHOUSE_SCHEMA_DRIFT=evolve to take it, or name the column in its contract"
        raise ContractFault(f"{'; '.join(drifted)}; the schema is frozen: {allowed}")
    for text in drifted:
        report.warning(text)


def source_totals(connection: Connection, one: Plan, watch: Watch) -> Totals:
    """Rows of the table in the snapshot and the sums of its amounts, as the server counts them."""
    summed = {name: one.readings[name].value for name in one.readings if is_summed(one.types[name])}
    items = ", ".join(["count(*)", *(f"coalesce(sum({value}), 0)" for value in summed.values())])
    try:
        with watch.waiting(), unhurried(connection), connection.cursor() as cursor:
            cursor.execute(f"SELECT {items} FROM {one.relation.sql}")
            rows, *sums = cursor.fetchone()
    except psycopg2.Error as error:
        raise source_fault(f"counting {one.relation.schema}.{one.relation.name}", error) from error
    return rows, dict(zip(summed, sums, strict=True))


def _built(settings: Settings, one: Plan, parts: list[Part], source: Totals) -> Built:
    """The table's files, proved to hold what the source counted."""
    rows, totals = source
    seconds = time.monotonic() - min(part.started for part in parts)
    done = TableRun(one.table.name, 0, rows, rows, seconds=seconds, guaranteed=guaranteed(one))
    files = sorted(part.name for part in parts if part.rows)
    built = Built(done, one.table, lake.table_path(settings.bronze_path, one.table), one.schema, files)
    return prove(built, one.types, one.table.keys, rows, totals)
