"""`make plan`: what the next run would do with each table, and why. It reads the source and writes nothing."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from conf.settings import Settings
from pipelines.bronze.files import landing_state, whole_because
from pipelines.bronze.incremental import LoadPlan, SourceTotals, plan_loads
from pipelines.bronze.job import drift, read_plans, source_totals
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.names import LAYERS
from pipelines.lake import full_build, run_log
from pipelines.lake.engine import count, engine, relation, without
from pipelines.lake.runs import Run, RunContext
from pipelines.lake.versions import table_version
from pipelines.run.begin import next_run, origin_of
from pipelines.silver import job as silver_job
from pipelines.sources.postgres import fingerprint
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.reader import Reader
from pipelines.sources.postgres.snapshot import Snapshot, take_snapshot


def plan(settings: Settings, domains: tuple[str, ...], full: frozenset[str], report: Report) -> None:
    """Shows each table: whole, or what changed; rows to come and rows deleted; why; and columns that changed."""
    table = grid("layer", "table", "rows to come", "deleted", "how", left=2)
    table.columns[-1].justify = "left"
    notes: list[str] = []
    for domain in domains:
        rows = _of_files if catalogue.is_of_files(domain) else _of_postgres
        for row in rows(settings, domain, full, notes, report):
            table.add_row("bronze", *row)
        for layer in LAYERS[1:]:
            for name, how in _derived(settings, layer, domain, full):
                table.add_row(layer, name, "", "", how)
    report.show(table)
    for note in notes:
        report.say(note)


def _of_files(
    settings: Settings, domain: str, full: frozenset[str], _: list[str], report: Report
) -> Iterator[tuple[str, str, str, str]]:
    """Of each table how many files are to be taken; their rows are not counted."""
    tables, previous = catalogue.tables_of("bronze", domain), run_log.last_run(settings.bronze_path, domain)
    report.progress("plan", domain, 0)
    files = landing_state(settings, domain, tables, report)
    before = {done.name: done for done in previous.tables} if previous else {}
    for table in tables:
        why = whole_because(table, before.get(table.name), table.name in full)
        some = sum(file.table == table for file in files.new)
        some += sum(one.table == table.name for one in files.present) if why else 0
        new = f"{some} file{'' if some == 1 else 's'}" if some or why else ""
        yield table.name, "", "", f"whole: {why}, {new}" if why else new or "unchanged"


def _of_postgres(
    settings: Settings, domain: str, full: frozenset[str], notes: list[str], report: Report
) -> Iterator[tuple[str, str, str, str]]:
    tables, previous = catalogue.tables_of("bronze", domain), run_log.last_run(settings.bronze_path, domain)
    with (
        source_server(settings) as server,
        take_snapshot(server, settings.schema_name, [table.source_name for table in tables]) as snapshot,
    ):
        run = replace(previous or next_run(settings, "bronze", domain, "", None, ""), started=datetime.now(UTC))
        for load in plan_loads(settings, snapshot, read_plans(snapshot, tables), RunContext(run, previous, full)):
            report.progress("plan", load.plan.table.name, 0)
            rows, gone = _counted(settings, snapshot, load, previous, report)
            how = f"whole: {load.why}" if load.why else "what changed" if rows or gone else "unchanged"
            yield load.plan.table.name, f"{rows:,}", f"{gone:,}", how
            notes += drift(load.plan, load.before) if load.before else []


def _counted(
    settings: Settings, snapshot: Snapshot, load: LoadPlan, previous: Run | None, report: Report
) -> tuple[int, int]:
    """Rows to come, and rows deleted since the run before."""
    reader = Reader(snapshot.server, snapshot.exported, 0, report)
    since = fingerprint.newer_than(previous.snapshot) if previous and not load.why else "false"
    try:
        totals = source_totals(snapshot.connection, load.plan, since, reader.watchdog)
        if previous is None or load.why or load.before is None:
            return totals.rows, 0
        return totals.newer, _deleted(settings, load, previous, totals, reader)
    finally:
        reader.close()


def _deleted(settings: Settings, load: LoadPlan, previous: Run, totals: SourceTotals, reader: Reader) -> int:
    one, keys = load.plan, load.plan.table.keys
    assert load.before is not None
    old, types = table_version(settings.bronze_path, previous, one.table), {key: one.types[key] for key in keys}
    with tempfile.TemporaryDirectory() as folder, engine(f"bronze.{one.table.name}", Path(folder)) as db:
        part = reader.read(
            replace(one, readings={key: one.readings[key] for key in keys}, types=types),
            fingerprint.newer_than(previous.snapshot),
            Path(folder),
        )
        new = relation([f"{folder}/{part.name}"] if part.rows else [], types)
        return load.before.rows_out + count(db, without(new, keys, old.sql)) - totals.rows


def _derived(settings: Settings, layer: str, domain: str, full: frozenset[str]) -> list[tuple[str, str]]:
    """How the tables of silver or gold will be built, by name."""
    path = settings.layer_path(layer)
    previous = run_log.last_run(path, domain)
    run = previous or next_run(settings, layer, domain, "", None, "")
    call = RunContext(replace(run, started=datetime.now(UTC)), previous, full)
    upstream = run_log.last_run(settings.layer_path(LAYERS[LAYERS.index(layer) - 1]), domain)
    origin = origin_of(settings, layer, previous)
    said = []
    for table in catalogue.tables_of(layer, domain):
        why = full_build.reason_for_full_derived(settings, call, origin, table.name)
        if layer == "silver" and not why and upstream:
            why = silver_job.no_changes_because(table, origin, upstream)
        said.append((table.name, f"whole: {why}" if why else f"what changed in {LAYERS[LAYERS.index(layer) - 1]}"))
    return said
