"""Bronze's job: copies the source's tables under one snapshot, as Parquet files and one Delta commit per table."""

import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from concurrent.futures import as_completed
from dataclasses import replace
from datetime import datetime

from conf.contract import Table
from conf.settings import Settings
from pipelines.bronze.incremental import Batch, NotProved, apply_changes
from pipelines.bronze.loads import LoadPlan, drift, guaranteed, plan_loads, read_plans, report_or_refuse
from pipelines.bronze.readers import Readers, StartSession
from pipelines.core.console import Report
from pipelines.core.points import Point, crash_point
from pipelines.lake import delta, folders
from pipelines.lake.changes import Target
from pipelines.lake.engine import engine
from pipelines.lake.runs import RunContext, TableRun
from pipelines.lake.versions import StagedTable, table_version, verify
from pipelines.sources.postgres.reader import SourceTotals, WrittenFile
from pipelines.sources.postgres.snapshot import Snapshot


def read(
    settings: Settings,
    snapshot: Snapshot,
    tables: tuple[Table, ...],
    call: RunContext,
    report: Report,
    start_session: StartSession | None,
) -> Generator[StagedTable, None, None]:
    """Reads each table, in full or what changed, and proves it. All are checked before anything is written. Tasks of
    the session that `start_session` gives read the source, or threads of this process without it.

    Raises ContractFault, SourceFault, QualityFault.
    """
    plans = read_plans(snapshot, tables)
    crash_point(Point.SNAPSHOT_TAKEN)
    loads = plan_loads(settings, snapshot, plans, call)
    drifted = [change for load in loads if load.previous for change in drift(load.plan, load.previous)]
    report_or_refuse(settings.schema_drift == "freeze", drifted, report)
    loads.sort(key=lambda load: (bool(load.why), -load.plan.relation.size))
    in_full, changed = [load for load in loads if load.why], [load for load in loads if not load.why]
    bronze, run = settings.bronze_path, call.run.run
    targets = {table.name: Target(table, folders.table_path(bronze, table), run) for table in tables}
    for target in targets.values():
        delta.make_folder(target.path)
    with Readers(settings, snapshot, run, report, start_session) as readers:
        totals = {load.plan.table.name: readers.count(load.plan, load.newer) for load in loads}
        if changed:
            with folders.scratch(bronze, "run") as folder, engine(f"bronze in {bronze}", folder) as db:
                for load in changed:
                    name = load.plan.table.name
                    assert call.previous is not None
                    old = table_version(bronze, call.previous, load.plan.table)
                    batch = Batch(load, old, totals[name].result(), targets[name], readers.rows, readers.ask)
                    try:
                        yield apply_changes(db, batch)
                    except NotProved as reason:
                        report.warning(f"bronze.{name}: {reason}; it was loaded in full")
                        in_full.append(replace(load, why=str(reason)))
        for load, parts in _ranges_of(readers, in_full):
            name = load.plan.table.name
            yield _proved(load, parts, targets[name], totals[name].result(), call.run.started)


def _ranges_of(readers: Readers, loads: list[LoadPlan]) -> Iterator[tuple[LoadPlan, list[WrittenFile]]]:
    """Each table that is read in full with its files, as soon as its last range has arrived."""
    futures = {future: load for load in loads for future in readers.load(load.plan)}
    ranges = Counter(load.plan.table.name for load in futures.values())
    parts: dict[str, list[WrittenFile]] = defaultdict(list)
    for future in as_completed(futures):
        load = futures[future]
        name = load.plan.table.name
        parts[name].append(future.result())
        if len(parts[name]) == ranges[name]:
            yield load, parts[name]


def _proved(
    load: LoadPlan, parts: list[WrittenFile], target: Target, totals: SourceTotals, started: datetime
) -> StagedTable:
    plan, rows = load.plan, totals.rows
    how, seconds = f"full: {load.why}", time.monotonic() - min(part.started for part in parts)
    table_run = TableRun(plan.table.name, 0, rows, rows, full_at=started, how=how, basis=load.basis)
    table_run = replace(table_run, seconds=seconds, guaranteed=guaranteed(plan))
    files = sorted(part.name for part in parts if part.rows)
    # Of an incremental load that was not proved, or of a worker that was lost.
    delta.sweep(target.path, target.run, files)
    staged = StagedTable(table_run, plan.table, target.path, files)
    return verify(staged, plan.types, rows, totals.sums)
