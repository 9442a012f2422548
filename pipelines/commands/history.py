"""`make history`: the runs of each layer, and what changed in each."""

from datetime import timedelta

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.names import HISTORY, LAYERS
from pipelines.lake import run_log
from pipelines.lake.runs import Run, TableRun

SHOWN = 20


def history(settings: Settings, report: Report) -> None:
    """The last runs of each layer, newest first: what each built, and what changed against the run before it."""
    table = grid("run", "domain", "what", "finished (UTC)", "changes", "rows", "set aside", "seconds", left=5)
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for domain in catalogue.domains():
            runs = run_log.read_runs(path, domain=domain)
            for before, run in reversed(list(zip([None, *runs], runs, strict=False))[-SHOWN:]):
                rows = sum(one.rows_out for one in run.tables if not one.is_beside)
                aside = sum(one.set_aside for one in run.tables)
                seconds = (run.finished - run.started) / timedelta(seconds=1)
                words = (f"{layer}/{run.run}", domain, what(layer, run), f"{run.finished:%Y-%m-%d %H:%M}")
                table.add_row(*words, changes(before, run), f"{rows:,}", f"{aside:,}", f"{seconds:.1f}")
    if not table.row_count:
        report.say("no layer has a complete run; run `make demo` or `make bronze silver gold` first")
        return
    report.show(table)
    kept = f"{settings.history_days} day{'s' if settings.history_days > 1 else ''}"
    report.say(f"\n`make restore RUN=<run>` makes one of them the present one; `make maintain` keeps those of {kept}")


def what(layer: str, run: Run) -> str:
    """What a run did: `run of silver/7`, `restore of gold/3`."""
    if run.content_of is not None:
        return f"{run.kind} of {run.content_of}"
    return (
        run.kind if run.upstream_run is None else f"{run.kind} of {LAYERS[LAYERS.index(layer) - 1]}/{run.upstream_run}"
    )


def changes(before: Run | None, run: Run) -> str:
    """Rows that tables gained or lost; of others whether their content is another one."""
    if before is None:
        return "first run"
    was = {table.name: table for table in before.tables}
    tables = [table for table in run.tables if not table.name.endswith(HISTORY)]
    return ", ".join(filter(None, (_change(was.get(table.name), table, before, run) for table in tables))) or "none"


def _change(was: TableRun | None, now: TableRun, before: Run, run: Run) -> str:
    if was is None:
        return f"{now.name} new"
    if now.rows_out != was.rows_out:
        return f"{now.name} {now.rows_out - was.rows_out:+,}"
    known = {column.name: column for column in was.columns if column.name != "_batch"}
    same = {column.name: column for column in now.columns if column.name != "_batch"} == known
    return "" if same or before.hashing != run.hashing else f"{now.name} changed"
