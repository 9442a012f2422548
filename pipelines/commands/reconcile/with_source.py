"""Bronze against its source as it is now: the landing folder's files, or PostgreSQL."""

from dataclasses import replace

from conf.contract import Table
from pipelines.bronze.drift import drift
from pipelines.bronze.loads import read_plans
from pipelines.commands.reconcile import with_files, with_postgres
from pipelines.commands.reconcile.comparison import DIFFERS, WITH_RUN, WITH_UPSTREAM, Comparison, shown
from pipelines.core import catalogue
from pipelines.core.errors import SourceFault, StorageFault
from pipelines.sources.domains import address
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.reader import POSTGRES_AUDIT, ReadPlan
from pipelines.sources.postgres.snapshot import Snapshot, take_snapshot


def compare(comparison: Comparison) -> None:
    """Compares all tables. Raises SourceFault if the source cannot be read, or is not the source that the run read."""
    settings, run = comparison.settings, comparison.run
    tables, source = catalogue.tables_of("bronze", run.domain), address(settings, run.domain)
    if source != run.source:
        raise SourceFault(f"run {run.run} read {run.source}, the settings name {source}: bronze was not compared")
    if catalogue.is_of_files(run.domain):
        for table in tables:
            comparison.report.progress("source", table.name, 0)
            _with_files(comparison, table)
        return
    names = [table.source_name for table in tables]
    with source_server(settings) as server, take_snapshot(server, settings.schema_name, names) as snapshot:
        for plan in read_plans(snapshot, tables):
            comparison.report.progress("source", plan.table.name, 0)
            _with_postgres(comparison, snapshot, plan)


def _with_files(comparison: Comparison, table: Table) -> None:
    try:
        head = comparison.head(comparison.run.table(table.name))
        wrong, notes = with_files.compare(comparison, table, head)
    except StorageFault as fault:
        comparison.add(table.name, WITH_UPSTREAM, [f"cannot be compared with its files: {fault}"])
        return
    comparison.add(table.name, WITH_UPSTREAM, [f"is not what its files have: {difference}" for difference in wrong])
    comparison.findings.notes += notes


def _with_postgres(comparison: Comparison, snapshot: Snapshot, plan: ReadPlan) -> None:
    findings, run, name = comparison.findings, comparison.run, plan.table.name
    table_run = run.table(name)
    findings.notes += [f"{text}, since run {run.run}" for text in drift(plan, table_run)]
    types = {column.name: column.type for column in table_run.columns if column.name not in POSTGRES_AUDIT}
    if not types:
        return  # with_run reported it
    known = {column: reading for column, reading in plan.readings.items() if types.get(column) == plan.types[column]}
    try:
        head = comparison.head(table_run)
        comparable = replace(plan, readings=known, partial=known.keys() != types.keys())
        difference = with_postgres.compare(comparison, snapshot, comparable, head.sql)
    except StorageFault as fault:
        comparison.add(name, WITH_UPSTREAM, [f"cannot be compared with the source: {fault}"])
        return
    if difference is None:
        comparison.add(name, WITH_UPSTREAM, [])
        return
    # Rows that only the lake has were deleted since, unless the lake is known to be wrong.
    is_damaged = findings.lines["bronze", name][WITH_RUN] == DIFFERS
    wrong = [shown(each, plan.table) for each in difference.wrong if is_damaged or each.kind != "extra"]
    comparison.add(name, WITH_UPSTREAM, [f"is not what the source had: {each}" for each in wrong])
    if not wrong:
        rows = f"{difference.newer:,} row{'s' if difference.newer != 1 else ''}"
        newer = f"{rows} written since run {run.run}, {difference.gone:,} gone"
        changed = newer if difference.exact else f"changed since run {run.run}"
        findings.notes.append(f"source.{name}: {changed}; `make bronze` reads it")
        findings.lines["bronze", name][WITH_UPSTREAM] = "changed since"
