"""Bronze's job: copies the source's tables under one snapshot, as Parquet files and one Delta commit per table.

Readers are threads of this process: ADBC and pyarrow leave the interpreter free while they work. Each reads one range
of a table's pages in the snapshot that the control connection exported.
"""

import difflib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.extensions import connection as Connection

from conf.contract import Table, is_summed
from conf.settings import Postgres, Settings
from pipelines.bronze import executors as bronze_executors
from pipelines.bronze.drift import report_or_refuse
from pipelines.bronze.incremental import LoadPlan, ReadRows, SourceTotals, apply_changes, plan_loads
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault
from pipelines.core.points import Point, crash_point
from pipelines.lake import delta, folders
from pipelines.lake.engine import engine
from pipelines.lake.runs import Run, RunContext, TableRun, table_runs
from pipelines.lake.staging import StagedTable, verify
from pipelines.sources.postgres.connection import cancel, hang_up, source_fault, unhurried
from pipelines.sources.postgres.fingerprint import newer_than
from pipelines.sources.postgres.reader import AUDIT, Reader, ReadPlan, WrittenFile
from pipelines.sources.postgres.relations import Relation, describe
from pipelines.sources.postgres.snapshot import Snapshot
from pipelines.sources.postgres.types import Reading, natural_type, read_as
from pipelines.sources.postgres.watchdog import Watchdog
from pipelines.spark import cluster as spark_cluster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


RANGE_BYTES, SMALL_BYTES = 64 * 2**20, 8 * 2**20


READERS = min(4, os.cpu_count() or 1)


CANCEL_SECONDS = 3


def read_plan(table: Table, relation: Relation) -> ReadPlan:
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
    return ReadPlan(table, relation, readings, types | AUDIT)


def drift(one: ReadPlan, before: TableRun) -> list[str]:
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


def guaranteed(one: ReadPlan) -> tuple[str, ...]:
    """What the source's constraints promise of numbers: "key", and each column whose reference holds.

    Texts are left out: cleaning may make two of them one.
    """
    table, relation = one.table, one.relation
    exact = {column.name for column in table.columns if column.type != "string"}
    key = ["key"] if set(table.keys) <= exact and frozenset(table.keys) in relation.unique else []
    return tuple(key) + tuple(
        column.name
        for column, reference in table.references
        if column.name in exact
        and not reference.with_columns
        and (column.name, reference.table.source_name, reference.table.keys[0]) in relation.foreign_keys
    )


def read_plans(snapshot: Snapshot, tables: tuple[Table, ...]) -> list[ReadPlan]:
    """The plans of all tables. Raises one ContractFault that names everything that is missing or does not convert."""
    made, problems = [], []
    for table in tables:
        relation = describe(snapshot, table.source_name)
        if relation is None:
            problems.append(f"table {snapshot.schema}.{table.source_name} is missing")
            continue
        try:
            made.append(read_plan(table, relation))
        except ContractFault as fault:
            problems.append(str(fault))
    if problems:
        raise ContractFault(f"the source is not what the contracts say: {'; '.join(problems)}")
    return made


def ranges(relation: Relation, readers: int, parts: int = 0) -> list[str]:
    """Conditions on `ctid` that cut the table into page ranges; the last one is open, so that no row is left out.

    As many for each reader, and so for each task that reads what it wrote; a small table is one.
    """
    if not parts:
        parts = -(-relation.size // (RANGE_BYTES * readers)) * readers if relation.size > SMALL_BYTES else 1
    bounds = [relation.pages * part // parts for part in range(1, parts)]
    lower = ["", *(f"ctid >= '({page},0)'" for page in bounds)]
    upper = [*(f"ctid < '({page},0)'" for page in bounds), ""]
    return [" AND ".join(filter(None, both)) for both in zip(lower, upper, strict=True)]


def read(
    settings: Settings,
    snapshot: Snapshot,
    tables: tuple[Table, ...],
    call: RunContext,
    report: Report,
    started: "Callable[[], SparkSession]",
) -> Iterator[StagedTable]:
    """Reads what changed, or all, of each table, and proves it. Nothing is written before all of them are checked.
    Where Spark's master is a cluster, its executors read, in the session that `started` gives."""
    todo = read_plans(snapshot, tables)
    crash_point(Point.SNAPSHOT_TAKEN)
    _report_drift(settings, todo, call.previous, report)
    loads = plan_loads(settings, snapshot, todo, call)
    for one in todo:
        delta.make_folder(folders.table_path(settings.bronze_path, one.table))
    server = snapshot.server
    reader = Reader(server, snapshot.exported, call.run.run, report)

    many = READERS if settings.spark.is_local else spark_cluster.READERS

    @cache
    def executors() -> bronze_executors.Executors:
        if warning := spark_cluster.unencrypted_warning(started(), server):
            report.warning(warning)
        return bronze_executors.Executors(started(), settings, server, snapshot.exported, call.run.run)

    totals: dict[str, Future[SourceTotals]] = {}
    submitted: dict[Future[WrittenFile], tuple[str, Path]] = {}
    built: set[str] = set()
    with ThreadPoolExecutor(1) as control, ThreadPoolExecutor(many, thread_name_prefix="reader") as pool:

        def submit(one: ReadPlan, condition: str, path: Path) -> Future[WrittenFile]:
            readers = reader if settings.spark.is_local else executors()
            future = pool.submit(readers.read, one, condition, path)
            submitted[future] = one.table.name, path
            return future

        def rows(one: ReadPlan, condition: str, path: Path) -> list[WrittenFile]:
            """All rows that meet a condition, read by all readers where there are many."""
            parts = ranges(one.relation, many, min(many, len(ranges(one.relation, many))))
            some = [submit(one, " AND ".join(filter(None, (condition, part))), path) for part in parts]
            return [future.result() for future in some]

        try:
            loads.sort(key=lambda one: (bool(one.why), -one.plan.relation.size))
            for load in loads:
                since = newer_than(call.previous.snapshot) if call.previous and not load.why else "false"
                totals[load.plan.table.name] = control.submit(
                    source_totals, snapshot.connection, load.plan, since, reader.watchdog
                )
            whole = [load for load in loads if load.why]
            for made in _followed(settings, loads, totals, call, rows, report):
                if isinstance(made, LoadPlan):
                    whole.append(made)
                else:
                    yield made
                    built.add(made.table_run.name)
            futures: dict[Future[WrittenFile], LoadPlan] = {}
            for load in whole:
                path = folders.table_path(settings.bronze_path, load.plan.table)
                conditions = ranges(load.plan.relation, many)
                futures |= {submit(load.plan, condition, path): load for condition in conditions}
            yield from _as_built(settings, futures, totals, built, call.run)
        except BaseException as error:
            reader.stop()
            _end((pool, control), server, executors().cancel if executors.cache_info().currsize else None)
            for name, path in set(submitted.values()):
                if name not in built:
                    _sweep(path, call.run, [])
            for counted in totals.values():
                # A failed count ends the snapshot, and with it the readers: it is what went wrong first.
                if isinstance(error, SourceFault) and not counted.cancelled() and (first := counted.exception()):
                    raise first from error
            raise
        finally:
            reader.close()


def _followed(
    settings: Settings,
    loads: list[LoadPlan],
    totals: dict[str, Future[SourceTotals]],
    call: RunContext,
    read: ReadRows,
    report: Report,
) -> Iterator[StagedTable | LoadPlan]:
    """The tables that follow their source by what changed; one of which that cannot be proved is to be loaded whole."""
    some = [one for one in loads if not one.why]
    if not some:
        return
    assert call.previous is not None
    with (
        folders.scratch(settings.bronze_path, "run") as folder,
        engine(f"bronze in {settings.bronze_path}", folder) as db,
    ):
        for one in some:
            name = one.plan.table.name
            made = apply_changes(db, settings, one, call.previous, totals[name].result(), read, call.run.run)
            if isinstance(made, str):
                report.warning(f"bronze.{name}: {made}; it was loaded whole")
                yield replace(one, why=made)
            else:
                yield replace(made, table_run=replace(made.table_run, guaranteed=guaranteed(one.plan)))


def _as_built(
    settings: Settings,
    futures: dict[Future[WrittenFile], LoadPlan],
    totals: dict[str, Future[SourceTotals]],
    built: set[str],
    run: Run,
) -> Iterator[StagedTable]:
    """Each table when its last range is in; `built` has the names of those that were given on."""
    waiting = Counter(one.plan.table.name for one in futures.values())
    parts: dict[str, list[WrittenFile]] = {name: [] for name in waiting}
    for future in as_completed(futures):
        name = futures[future].plan.table.name
        parts[name].append(future.result())
        waiting[name] -= 1
        if not waiting[name]:
            yield _built(settings, futures[future], parts[name], totals[name].result(), run)
            built.add(name)


def _end(pools: tuple[ThreadPoolExecutor, ...], server: Postgres, give_up: Callable[[], None] | None) -> None:
    """Waits until no query runs. One may begin after a cancel, so they are cancelled until all have ended; a server
    that does not answer is hung up on, and executors that wait for it are made to `give_up`."""
    for executor in pools:
        executor.shutdown(wait=False, cancel_futures=True)
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.1):
            cancel(server)

    def leave() -> None:
        while not ended.wait(CANCEL_SECONDS):
            hang_up(server)
            if give_up:
                give_up()

    with ThreadPoolExecutor(2) as enders:
        enders.submit(ask)
        enders.submit(leave)
        try:
            for executor in pools:
                executor.shutdown()
        finally:
            ended.set()


def _report_drift(settings: Settings, todo: list[ReadPlan], previous: Run | None, report: Report) -> None:
    before = table_runs(previous)
    drifted = [text for one in todo if one.table.name in before for text in drift(one, before[one.table.name])]
    report_or_refuse(settings, drifted, report)


def source_totals(connection: Connection, one: ReadPlan, since: str, watch: Watchdog) -> SourceTotals:
    """Rows of the table in the snapshot, the sums of its amounts, and the rows that meet `since`, as the server counts
    them."""
    summed = {name: one.readings[name].value for name in one.readings if is_summed(one.types[name])}
    sums = [f"coalesce(sum({value}), 0)" for value in summed.values()]
    items = ", ".join(["count(*)", "0" if since == "false" else f"count(*) FILTER (WHERE {since})", *sums])
    try:
        with watch.waiting(), unhurried(connection), connection.cursor() as cursor:
            cursor.execute(f"SELECT {items} FROM {one.relation.sql}")
            rows, since_then, *found = cursor.fetchone()
    except psycopg2.Error as error:
        raise source_fault(f"counting {one.relation.schema}.{one.relation.name}", error) from error
    return SourceTotals(rows, dict(zip(summed, found, strict=True)), since_then)


def _sweep(path: Path, run: Run, files: list[str]) -> None:
    """Removes what readers wrote for nothing, `files` aside: in vain, or on a worker that was lost."""
    for file in set(path.glob(delta.part_name(run.run, "*"))) - {path / name for name in files}:
        file.unlink(missing_ok=True)


def _built(settings: Settings, load: LoadPlan, parts: list[WrittenFile], source: SourceTotals, run: Run) -> StagedTable:
    """The table's files, proved to hold what the source counted."""
    one, rows = load.plan, source.rows
    done = TableRun(
        one.table.name,
        0,
        rows,
        rows,
        seconds=time.monotonic() - min(part.started for part in parts),
        guaranteed=guaranteed(one),
        full_at=run.started,
        how=f"full: {load.why}",
        base=run.run,
        basis=load.basis,
    )
    files = sorted(part.name for part in parts if part.rows)
    _sweep(folders.table_path(settings.bronze_path, one.table), run, files)
    built = StagedTable(done, one.table, folders.table_path(settings.bronze_path, one.table), one.schema, files)
    return verify(built, one.types, one.table.keys, rows, source.sums)
