"""Silver's job: each bronze table through its transform and its checks, into the accepted rows and the quarantine."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import Observation

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.catalogue import Entry
from pipelines.core.console import Report
from pipelines.core.names import QUARANTINE
from pipelines.core.sql import identifier
from pipelines.lake import folders, full_build, schema
from pipelines.lake.engine import engine
from pipelines.lake.runs import Run, TableRun, Upstream
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

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def build(
    settings: Settings,
    started: "Callable[[], SparkSession]",
    link: Upstream,
    entries: tuple[Entry, ...],
    report: Report,
) -> Iterator[StagedTable]:
    """Builds the tables, parents first; of each, what became of it and of its quarantine. Raises QualityFault where
    a rule or the share set aside ends the run, and where a row or a cent is not accounted for."""
    from pipelines.silver.history import build_history
    from pipelines.silver.incremental import apply_changes

    done: dict[str, StagedTable] = {}
    with folders.scratch(settings.silver_path, "run") as folder:
        for entry in entries:
            began, name = time.monotonic(), entry.table.name
            report.progress("silver", name, 0)
            why = whole_because(settings, link, entry.table)
            some = [] if why else apply_changes(settings, started, link, entry, done, folder, report)
            for built in some or _whole(settings, started(), link, entry, done, why or full_build.MUCH, report):
                done[built.done.name] = built
                yield replace(built, done=replace(built.done, seconds=time.monotonic() - began))
            if entry.table.history:
                yield build_history(settings, started, link, entry, done, folder)


def whole_because(settings: Settings, link: Upstream, table: Table) -> str:
    """Why a table cannot take over what changed in bronze; empty where it can."""
    if why := full_build.reason_for_full_derived(settings, link.call, link.origin, table.name):
        return why
    assert link.origin is not None
    if len(table.inputs) != 1 or not table.keys:
        return "it is made of several tables"
    if not all("key" in guaranteed(run, table) for run in (link.origin, link.upstream)):
        return "its key may come twice"
    return ""


def _whole(
    settings: Settings,
    spark: "SparkSession",
    link: Upstream,
    entry: Entry,
    done: dict[str, StagedTable],
    why: str,
    report: Report,
) -> Iterator[StagedTable]:
    """All rows of a table, whatever its last version has."""
    rows = {name: one.done.rows_out for name, one in done.items()}
    bronze = [read(spark, table_version(settings.bronze_path, link.upstream, one)) for one in entry.table.inputs]
    seen = bronze_facts(settings, link.upstream, entry.table)
    judged = check_rows(link.upstream, entry, bronze, lambda name: read(spark, done[name].content), rows, seen)
    for built in _write(settings, judged, entry.table, link.upstream, link.call.run.run, report):
        yield replace(built, done=replace(built.done, full_at=link.call.run.started, how=f"whole: {why}"))


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


def _write(
    settings: Settings, judged: CheckedRows, table: Table, upstream: Run, run: int, report: Report
) -> Iterator[StagedTable]:
    """Writes the rows accepted, then, in a second pass, those set aside, if any; both proved, neither committed."""
    observed = Observation(table.name)
    rows = judged.rows.observe(observed, *checks.counts(table, judged.checks))
    path = folders.table_path(settings.silver_path, table)
    files = write_files(accepted(settings, replace(judged, rows=rows), table), path, run)
    good = StagedTable(TableRun(table.name, 0, 0, 0), table, path, schema.schema_of(table, {}), files)
    try:
        found: Found = {name: count or 0 for name, count in observed.get.items()}  # a sum over no rows is null
        counted = {name: found[name] for name in ("rows_in", "rows_out", "set_aside", "copies")}
        good = replace(good, done=TableRun(table.name, 0, **counted))
        rules = tuple(verdicts(judged, found, table, run, found, {}))
        gate(table, found, rules, settings.quality.max_quarantined)
        conserve(table, upstream, found)
        good = verify(good, schema.types_of(table, {}), table.keys, found["rows_out"], totals(table, found, "out"))
        yield replace(good, rules=rules)
        yield _set_aside(settings, judged, table, upstream, run, found)
    except BaseException:
        good.discard()
        raise
    report_quality(table, found, rules, report)


def _set_aside(
    settings: Settings, judged: CheckedRows, table: Table, upstream: Run, run: int, found: Found
) -> StagedTable:
    """The quarantine: a second pass over the rows, only where it is not empty."""
    path, count, files = folders.table_path(settings.silver_path, table, QUARANTINE), found["set_aside"], list[str]()
    if count:
        files = write_files(checks.quarantined(judged.rows, table, judged.checks, upstream.run), path, run)
    done = TableRun(table.name + QUARANTINE, 0, count, count)
    built = StagedTable(done, table, path, schema.schema_of(table, QUARANTINE_COLUMNS), files)
    return verify(built, schema.types_of(table, QUARANTINE_COLUMNS), table.keys, count, totals(table, found, "aside"))
