"""`make history`: the runs of each layer, and what changed in each."""

from datetime import timedelta

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.names import HISTORY, LAYERS, upstream_layer
from pipelines.lake import run_log
from pipelines.lake.checksums import ColumnRun
from pipelines.lake.runs import Run, TableRun

RUNS_SHOWN = 20


def history(settings: Settings, report: Report) -> None:
    """Shows the last runs of each layer, newest first: what each built, and what changed since the previous run."""
    table = grid("run", "domain", "what", "finished (UTC)", "changes", "rows", "set aside", "seconds", left=5)
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for domain in catalogue.domains():
            runs = run_log.read_runs(path, domain=domain)
            for previous, run in reversed(list(zip([None, *runs], runs, strict=False))[-RUNS_SHOWN:]):
                rows = sum(table_run.rows_out for table_run in run.tables if not table_run.is_beside)
                aside = sum(table_run.set_aside for table_run in run.tables)
                seconds = (run.finished - run.started) / timedelta(seconds=1)
                words = (f"{layer}/{run.run}", domain, what(layer, run), f"{run.finished:%Y-%m-%d %H:%M}")
                table.add_row(*words, changes(previous, run), f"{rows:,}", f"{aside:,}", f"{seconds:.1f}")
    if not table.row_count:
        report.say("no layer has a complete run; run `make demo` or `make bronze silver gold` first")
        return
    report.show(table)
    kept = f"{settings.history_days} day{'s' if settings.history_days > 1 else ''}"
    report.say(f"\n`make restore RUN=<run>` brings one of them back; `make maintain` keeps those of the last {kept}")


def what(layer: str, run: Run) -> str:
    """What a run did: `run of silver/7`, `restore of gold/3`."""
    if run.content_of is not None:
        return f"{run.kind} of {run.content_of}"
    return run.kind if run.upstream_run is None else f"{run.kind} of {upstream_layer(layer)}/{run.upstream_run}"


def changes(previous: Run | None, run: Run) -> str:
    """The rows that tables gained or lost since the previous run, and the tables of as many rows whose content
    changed."""
    if previous is None:
        return "first run"
    known = {table.name: table for table in previous.tables}
    comparable = previous.hashing == run.hashing
    tables = [table for table in run.tables if not table.name.endswith(HISTORY)]
    return ", ".join(filter(None, (_change(known.get(table.name), table, comparable) for table in tables))) or "none"


def _change(previous: TableRun | None, table: TableRun, comparable: bool) -> str:
    """What changed in a table; `comparable`: its checksums mean the same as those of the previous run."""
    if previous is None:
        return f"{table.name} new"
    if table.rows_out != previous.rows_out:
        return f"{table.name} {table.rows_out - previous.rows_out:+,}"
    return f"{table.name} changed" if comparable and _columns(table) != _columns(previous) else ""


def _columns(table: TableRun) -> dict[str, ColumnRun]:
    return {column.name: column for column in table.columns if column.name != "_batch"}
