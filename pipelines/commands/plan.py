"""`make plan`: what the next run would do with each table, and why. It reads the source and writes nothing."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

from conf.settings import Settings
from pipelines.bronze.files import landing_state, reason_for_full
from pipelines.bronze.loads import LoadPlan, drift, plan_loads, read_plans
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.grid import Grid
from pipelines.core.names import LAYERS, upstream_layer
from pipelines.lake import folders, run_log
from pipelines.lake.engine import count, engine, relation, without
from pipelines.lake.runs import Mode, Run, RunContext, reason_for_full_derived, table_runs
from pipelines.lake.versions import table_version
from pipelines.run.lifecycle import next_run, origin_of
from pipelines.silver import job as silver_job
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.reader import Reader, source_totals
from pipelines.sources.postgres.snapshot import Snapshot, take_snapshot


@dataclass(frozen=True)
class TablePlan:
    """What the next run would do with a table, in words in `how`; the rows to read and the rows deleted, if they were
    counted, and `notes` on columns that changed."""

    name: str
    how: str
    rows: int | None = None
    deleted: int | None = None
    notes: tuple[str, ...] = ()


def plan(settings: Settings, domains: tuple[str, ...], full: frozenset[str], report: Report) -> bool:
    """Shows what the next run would do with each table: build it in full, or apply what changed; the rows to read and
    the rows deleted; why; and columns that changed. `full`: the tables that a person asks to build in full. Returns
    whether there is work."""
    titles = ("layer", "table", "rows to read", "deleted", "how")
    shown = Grid(titles, words=("layer", "table", "how"), below=("how",))
    notes, has_work = list[str](), False
    for domain in domains:
        bronze = _of_files if catalogue.is_of_files(domain) else _of_postgres
        plans, waits = list(bronze(settings, domain, full, report)), False
        for layer in LAYERS:
            if layer != "bronze":
                plans = list(_derived(settings, layer, domain, full, waits))
            waits = any(table.how != Mode.UNCHANGED for table in plans)
            has_work = has_work or waits
            for table in plans:
                shown.add_row(layer, table.name, _number(table.rows), _number(table.deleted), table.how)
                notes += table.notes
    report.show(shown)
    if not has_work:
        report.say("nothing to do: every table is as its source")
    for note in notes:
        report.say(note)
    return has_work


def _number(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"


def _of_files(settings: Settings, domain: str, full: frozenset[str], report: Report) -> Iterator[TablePlan]:
    """Counts the files that each table would take, not their rows."""
    tables, previous = catalogue.tables_of("bronze", domain), run_log.last_run(settings.bronze_path, domain)
    report.progress("plan", domain)
    landing = landing_state(settings, domain, report)
    known = table_runs(previous)
    for table in tables:
        why = reason_for_full(table, known.get(table.name), table.name in full)
        state = landing.of(table)
        number = len(state.new) + (len(state.current) if why else 0)
        files = f"{number} file{'' if number == 1 else 's'}"
        yield TablePlan(table.name, f"full: {why}, {files}" if why else files if number else Mode.UNCHANGED)


def _of_postgres(settings: Settings, domain: str, full: frozenset[str], report: Report) -> Iterator[TablePlan]:
    tables = catalogue.tables_of("bronze", domain)
    names = [table.source_name for table in tables]
    with (
        source_server(settings) as server,
        take_snapshot(server, settings.schema_name, names) as snapshot,
        closing(Reader(snapshot.server, snapshot.exported, 0, report)) as reader,
    ):
        context = _context(settings, "bronze", domain, full)
        for load in plan_loads(settings, snapshot, read_plans(snapshot, tables), context):
            report.progress("plan", load.plan.table.name)
            rows, deleted = _counted(settings, reader, snapshot, load, context.previous)
            how = f"full: {load.why}" if load.why else "what changed" if rows or deleted else Mode.UNCHANGED
            notes = drift(load.plan, load.previous) if load.previous else []
            yield TablePlan(load.plan.table.name, how, rows, deleted, tuple(notes))


def _context(settings: Settings, layer: str, domain: str, full: frozenset[str]) -> RunContext:
    """The run that would begin now."""
    previous = run_log.last_run(settings.layer_path(layer), domain)
    return RunContext(next_run(settings, layer, domain), previous, full)


def _counted(
    settings: Settings, reader: Reader, snapshot: Snapshot, load: LoadPlan, previous: Run | None
) -> tuple[int, int]:
    """Rows to read, and rows deleted since the previous run."""
    totals = source_totals(snapshot, load.plan, load.newer, reader.watchdog)
    if previous is None or load.why or load.previous is None:
        return totals.rows, 0
    expected = load.previous.rows_out + _new_keys(settings, reader, load, previous)
    return totals.newer, expected - totals.rows


def _new_keys(settings: Settings, reader: Reader, load: LoadPlan, previous: Run) -> int:
    """The number of keys that the previous run did not have, among those of rows written since."""
    plan, keys = load.plan, load.plan.table.keys
    old, types = table_version(settings.bronze_path, previous, plan.table), {key: plan.types[key] for key in keys}
    only_keys = replace(plan, readings={key: plan.readings[key] for key in keys}, types=types)
    with folders.temporary() as folder, engine(f"bronze.{plan.table.name}", folder) as db:
        part = reader.read(only_keys, load.newer, folder)
        new = relation([f"{folder}/{part.name}"] if part.rows else [], types)
        return count(db, without(new, keys, old.sql))


def _derived(settings: Settings, layer: str, domain: str, full: frozenset[str], waits: bool) -> Iterator[TablePlan]:
    """How the tables of silver or gold would be built. `waits`: the run has work in the layer below."""
    below, context = upstream_layer(layer), _context(settings, layer, domain, full)
    upstream = run_log.last_run(settings.layer_path(below), domain)
    origin = origin_of(settings, layer, context.previous)
    for table in catalogue.tables_of(layer, domain):
        why = reason_for_full_derived(settings, context, origin, table.name)
        if layer == "silver" and not why and upstream:
            why = silver_job.reason_not_incremental(table, origin, upstream)
        has_news = waits or not upstream or not origin or origin.built_in != upstream.built_in
        changed = f"what changed in {below}" if has_news else Mode.UNCHANGED
        yield TablePlan(table.name, f"full: {why}" if why else changed)
