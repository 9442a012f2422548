"""Silver's job: each bronze table through its transform and its checks, into the accepted rows and the quarantine."""

import time
from collections.abc import Iterator
from dataclasses import replace

from pyspark.sql import Observation

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.catalogue import Entry
from pipelines.core.names import QUARANTINE
from pipelines.core.sql import identifier
from pipelines.lake import folders, full_build, schema
from pipelines.lake.engine import engine
from pipelines.lake.runs import Run, TableRun
from pipelines.lake.staging import StagedTable, verify
from pipelines.lake.versions import table_version
from pipelines.silver import checks
from pipelines.silver.checks import QUARANTINE_COLUMNS
from pipelines.silver.judging import (
    BronzeFacts,
    CheckedRows,
    Found,
    accepted,
    check_rows,
    conserve,
    gate,
    guaranteed,
    report_quality,
    totals,
    verdicts,
)
from pipelines.spark.frames import read, write_files
from pipelines.spark.job import Job


def build(job: Job, entries: tuple[Entry, ...]) -> Iterator[StagedTable]:
    """Builds the tables, parents first; of each, what became of it and of its quarantine. Raises QualityFault where
    a rule or the share set aside ends the run, and where a row or a cent is not accounted for."""
    from pipelines.silver.history import build_history
    from pipelines.silver.incremental import apply_changes

    staged: dict[str, StagedTable] = {}
    for entry in entries:
        started, table = time.monotonic(), entry.table
        job.report.progress("silver", table.name, 0)
        why = full_build.reason_for_full_derived(job.settings, job, job.origin, table.name)
        why = why or no_changes_because(table, job.origin, job.upstream)
        changed = [] if why else apply_changes(job, entry, staged)
        for built in changed or _whole(job, entry, staged, why or full_build.MUCH):
            staged[built.table_run.name] = built
            yield replace(built, table_run=replace(built.table_run, seconds=time.monotonic() - started))
        if table.history:
            yield build_history(job, entry, staged)


def no_changes_because(table: Table, origin: Run | None, upstream: Run) -> str:
    """Why a table cannot take over what changed in bronze from the run `origin` to the run `upstream`; empty if it
    can."""
    if len(table.inputs) != 1 or not table.keys:
        return "it is made of several tables"
    if not all("key" in guaranteed(run, table) for run in (origin, upstream) if run):
        return "its key may come twice"
    return ""


def _whole(job: Job, entry: Entry, staged: dict[str, StagedTable], why: str) -> Iterator[StagedTable]:
    """All rows of a table, whatever its last version has."""
    spark, upstream = job.session(), job.upstream
    rows = {name: built.table_run.rows_out for name, built in staged.items()}
    bronze = [read(spark, table_version(job.settings.bronze_path, upstream, table)) for table in entry.table.inputs]
    seen = bronze_facts(job.settings, upstream, entry.table)
    judged = check_rows(upstream, entry, bronze, lambda name: read(spark, staged[name].content), rows, seen)
    for built in _write(job, judged, entry.table):
        yield replace(built, table_run=replace(built.table_run, full_at=job.run.started, how=f"full: {why}"))


def bronze_facts(settings: Settings, upstream: Run, table: Table) -> BronzeFacts:
    """Looks into bronze for what checks of all rows need not ask, for less than they would cost in Spark.

    A reference that the source promises is kept where each value is indeed a key of the parent's rows: constraints are
    not asked where triggers are off.
    """
    promised, kept, rescued = guaranteed(upstream, table), set[str](), False
    for one in table.inputs:
        with engine(f"bronze.{one.name}") as duck:
            rows = table_version(settings.bronze_path, upstream, one).sql
            found = duck.execute(f"SELECT 1 FROM {rows} WHERE _rescued IS NOT NULL LIMIT 1").fetchone()
            rescued = rescued or found is not None
    for column, reference in table.references:
        parent = reference.table
        if column.made_from in promised and not reference.columns and len(parent.inputs) == 1:
            rows, parents = (
                f"(SELECT {identifier(name)} AS k FROM {table_version(settings.bronze_path, upstream, one).sql})"
                for one, name in (
                    (table.inputs[0], column.made_from),
                    (parent.inputs[0], parent[parent.keys[0]].made_from),
                )
            )
            with engine(f"bronze.{table.inputs[0].name}") as duck:
                missing = duck.execute(
                    f"SELECT k FROM {rows} ANTI JOIN {parents} p USING (k) WHERE k IS NOT NULL LIMIT 1"
                )
                if missing.fetchone() is None:
                    kept.add(column.name)
    return BronzeFacts(frozenset(kept), rescued)


def _write(job: Job, judged: CheckedRows, table: Table) -> Iterator[StagedTable]:
    """Writes the rows accepted, then, in a second pass, those set aside, if any; both proved, neither committed."""
    settings, run, observed = job.settings, job.run.run, Observation(table.name)
    rows = judged.rows.observe(observed, *checks.counts(table, judged.checks))
    path = folders.table_path(settings.silver_path, table)
    files = write_files(accepted(settings, replace(judged, rows=rows), table), path, run)
    good = StagedTable(TableRun(table.name, 0, 0, 0), table, path, schema.schema_of(table, {}), files)
    try:
        found: Found = {name: count or 0 for name, count in observed.get.items()}  # a sum over no rows is null
        counted = {name: found[name] for name in ("rows_in", "rows_out", "set_aside", "copies")}
        good = replace(good, table_run=TableRun(table.name, 0, **counted))
        rules = tuple(verdicts(judged, found, table, run, found, {}))
        gate(table, found, rules, settings.quality.max_quarantined)
        conserve(table, job.upstream, found)
        good = verify(good, schema.types_of(table, {}), table.keys, found["rows_out"], totals(table, found, "out"))
        yield replace(good, rules=rules)
        yield _set_aside(job, judged, table, found)
    except BaseException:
        good.discard()
        raise
    report_quality(table, found, rules, job.report)


def _set_aside(job: Job, judged: CheckedRows, table: Table, found: Found) -> StagedTable:
    """The quarantine: a second pass over the rows, only where it is not empty."""
    path, count, files = (
        folders.table_path(job.settings.silver_path, table, QUARANTINE),
        found["set_aside"],
        list[str](),
    )
    if count:
        files = write_files(checks.quarantined(judged.rows, table, judged.checks, job.upstream.run), path, job.run.run)
    done = TableRun(table.name + QUARANTINE, 0, count, count)
    built = StagedTable(done, table, path, schema.schema_of(table, QUARANTINE_COLUMNS), files)
    return verify(built, schema.types_of(table, QUARANTINE_COLUMNS), table.keys, count, totals(table, found, "aside"))
