"""Bronze's job: copies the source's tables under one snapshot, as Parquet files and one Delta commit per table."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, as_completed
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Settings
from pipelines.bronze.drift import drift, report_or_refuse
from pipelines.bronze.incremental import Batch, NotProved, apply_changes
from pipelines.bronze.loads import LoadPlan, guaranteed, plan_loads, read_plans
from pipelines.bronze.readers import Readers, sweep
from pipelines.core.console import Report
from pipelines.core.points import Point, crash_point
from pipelines.lake import delta, folders
from pipelines.lake.changes import Target
from pipelines.lake.engine import engine
from pipelines.lake.runs import RunContext, TableRun
from pipelines.lake.versions import StagedTable, table_version, verify
from pipelines.sources.postgres.reader import SourceTotals, WrittenFile
from pipelines.sources.postgres.snapshot import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def read(
    settings: Settings,
    snapshot: Snapshot,
    tables: tuple[Table, ...],
    call: RunContext,
    report: Report,
    start_session: "Callable[[], SparkSession]",
) -> Iterator[StagedTable]:
    """Reads each table, in full or what changed, and proves it. All are checked before anything is written. If Spark's
    master is a cluster, its executors read, in the session that `start_session` gives.

    Raises ContractFault, SourceFault, QualityFault; then no file stays, except those of tables given out before.
    """
    plans = read_plans(snapshot, tables)
    crash_point(Point.SNAPSHOT_TAKEN)
    loads = plan_loads(settings, snapshot, plans, call)
    drifted = [change for load in loads if load.previous for change in drift(load.plan, load.previous)]
    report_or_refuse(settings, drifted, report)
    loads.sort(key=lambda load: (bool(load.why), -load.plan.relation.size))
    targets = {table.name: _target(settings, table, call) for table in tables}
    with Readers(settings, snapshot, call.run.run, report, start_session) as readers:
        totals = {load.table.name: readers.count(load.plan, load.newer) for load in loads}
        in_full = [load for load in loads if load.why]
        if changed := [load for load in loads if not load.why]:
            what = f"bronze in {settings.bronze_path}"
            with folders.scratch(settings.bronze_path, "run") as folder, engine(what, folder) as db:
                for load in changed:
                    name = load.table.name
                    assert call.previous is not None
                    old = table_version(settings.bronze_path, call.previous, load.table)
                    batch = Batch(load, old, totals[name].result(), targets[name], readers.rows)
                    try:
                        staged = apply_changes(db, batch)
                    except NotProved as reason:
                        report.warning(f"bronze.{name}: {reason}; it was loaded in full")
                        in_full.append(replace(load, why=str(reason)))
                    else:
                        yield staged
                        readers.keep(load.table)
        for staged in _loaded_in_full(in_full, targets, totals, readers, call.run.started):
            yield staged
            readers.keep(staged.table)


def _target(settings: Settings, table: Table, call: RunContext) -> Target:
    path = folders.table_path(settings.bronze_path, table)
    delta.make_folder(path)
    return Target(table, path, call.run.run)


def _loaded_in_full(
    loads: list[LoadPlan],
    targets: Mapping[str, Target],
    totals: Mapping[str, Future[SourceTotals]],
    readers: Readers,
    started: datetime,
) -> Iterator[StagedTable]:
    """Each table as soon as its last range has arrived. `started`: when the run did."""
    futures = {future: load for load in loads for future in readers.load(load.plan)}
    missing = Counter(load.table.name for load in futures.values())
    parts: dict[str, list[WrittenFile]] = {name: [] for name in missing}
    for future in as_completed(futures):
        load = futures[future]
        name = load.table.name
        parts[name].append(future.result())
        missing[name] -= 1
        if not missing[name]:
            yield _proved(load, parts[name], targets[name], totals[name].result(), started)


def _proved(
    load: LoadPlan, parts: list[WrittenFile], target: Target, totals: SourceTotals, started: datetime
) -> StagedTable:
    """The table's files, proved to hold what the source counted."""
    plan, rows = load.plan, totals.rows
    table_run = TableRun(
        plan.table.name,
        0,
        rows,
        rows,
        seconds=time.monotonic() - min(part.started for part in parts),
        guaranteed=guaranteed(plan),
        full_at=started,
        how=f"full: {load.why}",
        base=target.run,
        basis=load.basis,
    )
    files = sorted(part.name for part in parts if part.rows)
    sweep(target.path, target.run, files)
    return verify(
        StagedTable(table_run, plan.table, target.path, plan.schema, files),
        plan.types,
        plan.table.keys,
        rows,
        totals.sums,
    )
