"""Silver's job: each bronze table through its transform and its checks, into the accepted rows and the quarantine."""

from collections.abc import Generator, Iterator
from dataclasses import replace

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.catalogue import Entry
from pipelines.core.names import QUARANTINE
from pipelines.core.sql import identifier
from pipelines.lake import folders, schema
from pipelines.lake.engine import engine, renamed, without
from pipelines.lake.runs import MUCH_CHANGED, Job, Run, TableRun, reason_for_full_derived
from pipelines.lake.versions import StagedTable, table_version, verify
from pipelines.silver import checks, judging
from pipelines.silver.checks import QUARANTINE_COLUMNS, CheckedRows
from pipelines.silver.judging import BronzeFacts, Counts, Tables, guaranteed
from pipelines.spark import analysis
from pipelines.spark.frames import read, write_files


def build(job: Job, entries: tuple[Entry, ...]) -> Generator[StagedTable, None, None]:
    """Builds the tables, parents first, each with its quarantine and, if declared, its history. Raises QualityFault if
    a rule or the share of rows set aside ends the run, or if a row or a cent is not accounted for."""
    from pipelines.silver.history import build_history
    from pipelines.silver.incremental import apply_changes

    staged: dict[str, StagedTable] = {}
    analysis.check(job, entries, job.settings.bronze_path)
    for entry in entries:
        started, table = job.report.clock(), entry.table
        job.report.progress("silver", table.name)
        why = reason_for_full_derived(job.settings, job, job.origin, table.name)
        why = why or reason_not_incremental(table, job.origin, job.upstream)
        rows = sum(job.upstream.table(source.name).rows_out for source in table.inputs)
        job.report.expect("silver", table.name, rows)
        changed = [] if why else apply_changes(job, entry, staged)
        for built in changed or _build_in_full(job, entry, staged, why or MUCH_CHANGED):
            staged[built.table_run.name] = built
            yield replace(built, table_run=replace(built.table_run, seconds=job.report.clock() - started))
        judging.report_quality(staged[table.name], job.report)
        if table.history:
            yield build_history(job, entry, staged)


def reason_not_incremental(table: Table, origin: Run | None, upstream: Run) -> str:
    """Why a table cannot apply what changed in bronze between two runs; empty if it can."""
    if len(table.inputs) != 1:
        return "it is made of several tables"
    if not all("key" in guaranteed(run, table) for run in (origin, upstream) if run):
        return "its key may come twice"
    return ""


def _build_in_full(job: Job, entry: Entry, staged: Tables, why: str) -> Iterator[StagedTable]:
    """A table and then, in a second pass, its quarantine from all rows of bronze, whatever their last versions have."""
    settings, upstream, table, spark = job.settings, job.upstream, entry.table, job.session()
    bronze = [read(spark, table_version(settings.bronze_path, upstream, source)) for source in table.inputs]
    checked = judging.check_rows(upstream, entry, bronze, staged, bronze_facts(settings, upstream, table))
    observed, counts_when_written = judging.counted(checked)
    path = folders.table_path(settings.silver_path, table)
    files = write_files(judging.accepted(settings, observed), path, job.run.run)
    counts = counts_when_written()
    rules = tuple(judging.rule_runs(job.run.run, checked, counts, counts, {}))
    judging.gate(table, counts, rules, settings.quality.max_quarantined)
    judging.conserve(table, upstream, counts)
    table_run = TableRun(table.name, 0, 0, 0, full_at=job.run.started, how=f"full: {why}")
    good = StagedTable(counts.recorded(table_run), table, path, files, rules)
    yield verify(good, schema.types_of(table, {}), counts.rows_out, counts.sums_out)
    yield _quarantine(job, checked, counts, table_run)


def bronze_facts(settings: Settings, upstream: Run, table: Table) -> BronzeFacts:
    """Asks bronze what then need not be asked of each row, for less than that would cost in Spark. A promised reference
    is only trusted if each value is indeed a key among the parent's rows: the source does not enforce constraints where
    triggers are off."""

    def rows_of(source: Table) -> str:
        return table_version(settings.bronze_path, upstream, source).sql

    promised, kept = guaranteed(upstream, table), set[str]()
    for column, reference in table.references:
        parent = reference.table
        if column.made_from in promised and not reference.columns and len(parent.inputs) == 1:
            name, key = column.made_from, parent[parent.keys[0]].made_from
            parents = f"(SELECT {renamed([key], [name])} FROM {rows_of(parent.inputs[0])})"
            orphans = without(rows_of(table.inputs[0]), [name], parents)
            if not _has_rows(table.inputs[0], f"{orphans} WHERE {identifier(name)} IS NOT NULL"):
                kept.add(column.name)
    has_rescued = any(_has_rows(source, f"{rows_of(source)} WHERE _rescued IS NOT NULL") for source in table.inputs)
    return BronzeFacts(frozenset(kept), has_rescued)


def _has_rows(source: Table, relation: str) -> bool:
    with engine(f"bronze.{source.name}") as db:
        return db.execute(f"SELECT 1 FROM {relation} LIMIT 1").fetchone() is not None


def _quarantine(job: Job, checked: CheckedRows, counts: Counts, of_table: TableRun) -> StagedTable:
    """The rows set aside; without any, no second pass over the rows is made."""
    table, rows = checked.table, counts.set_aside
    path, files = folders.table_path(job.settings.silver_path, table, QUARANTINE), list[str]()
    if rows:
        files = write_files(checks.quarantined(checked, job.upstream.run), path, job.run.run)
    table_run = replace(of_table, name=table.name + QUARANTINE, rows_in=rows, rows_out=rows)
    built, types = StagedTable(table_run, table, path, files), schema.types_of(table, QUARANTINE_COLUMNS)
    return verify(built, types, rows, counts.sums_aside)
