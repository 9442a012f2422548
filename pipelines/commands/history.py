"""`make history` lists the runs and what changed in each; `make restore RUN=gold/12` brings one back, with its CSV."""

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.grid import Grid, marked
from pipelines.core.names import HISTORY, LAYERS, upstream_layer
from pipelines.export.publish import drafted
from pipelines.lake import folders, run_log
from pipelines.lake.checksums import ColumnRun
from pipelines.lake.runs import Mode, Run, TableRun
from pipelines.lake.versions import unchanged_table
from pipelines.run.lifecycle import commit_run, next_run, rolled_back_on_failure

RUNS_SHOWN = 20


def history(settings: Settings, report: Report) -> None:
    """Shows the last runs of each layer, newest first: what each built, and what changed since the previous run."""
    titles = ("run", "domain", "what", "finished (UTC)", "rows", "set aside", "seconds", "changes")
    table = Grid(titles, words=(*titles[:4], "changes"), spare=("domain",), below=("changes",))
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for domain in catalogue.domains():
            runs = run_log.read_runs(path, domain=domain)
            for previous, run in reversed(list(zip([None, *runs], runs, strict=False))[-RUNS_SHOWN:]):
                rows = sum(table_run.rows_out for table_run in run.tables if not table_run.is_beside)
                aside = sum(table_run.set_aside for table_run in run.tables)
                seconds = (run.finished - run.started) / timedelta(seconds=1)
                words = (f"{layer}/{run.run}", domain, what(layer, run), f"{run.finished:%Y-%m-%d %H:%M}")
                numbers = (f"{rows:,}", marked(aside, "yellow"), f"{seconds:.1f}")
                table.add_row(*words, *numbers, changes(previous, run))
    if not table.rows:
        report.say("no layer has a complete run; run `make demo` or `make bronze silver gold` first")
        return
    report.show(table)
    kept = f"{settings.history_days} day{'s' if settings.history_days > 1 else ''}"
    report.say("", f"`make restore RUN=<run>` brings one of them back; `make maintain` keeps those of the last {kept}")


def what(layer: str, run: Run) -> str:
    """What a run did: `run of silver/7`, `restore of gold/3`."""
    if run.content_of is not None:
        return f"{run.kind} of {run.content_of}"
    return run.kind if run.upstream_run is None else f"{run.kind} of {upstream_layer(layer)}/{run.upstream_run}"


def changes(previous: Run | None, run: Run) -> str:
    """The rows that a run wrote, updated and deleted in each table. If a table was built in full or restored, the rows
    that it gained or lost since the previous run."""
    if previous is None:
        return "first run"
    known = {table.name: table for table in previous.tables}
    comparable = previous.hashing == run.hashing
    texts = []
    for table in (table for table in run.tables if not table.name.endswith(HISTORY)):
        if table.mode is Mode.FULL or table.name not in known or run.content_of is not None:
            texts.append(_change(known.get(table.name), table, comparable))
        elif table.mode is Mode.CHANGED:
            texts.append(f"{table.name} {table.how}")
    return "; ".join(filter(None, texts)) or "none"


def _change(previous: TableRun | None, table: TableRun, comparable: bool) -> str:
    """What a version not made from the previous one has otherwise; `comparable`: their checksums mean the same."""
    if previous is None:
        return f"{table.name} new"
    if table.rows_out != previous.rows_out:
        return f"{table.name} {table.rows_out - previous.rows_out:+,} rows"
    return f"{table.name} other content" if comparable and _columns(table) != _columns(previous) else ""


def _columns(table: TableRun) -> dict[str, ColumnRun]:
    return {column.name: column for column in table.columns if column.name != "_batch"}


def restore(settings: Settings, word: str, report: Report) -> tuple[str, Run]:
    """Brings back what the run named by `word` left, with its CSV, as a new run; the next run replaces it. Raises
    StorageFault if files of it are gone."""
    run_log.find_run(settings, word)  # before a lock is taken or a folder made
    with run_log.locked(settings), ExitStack() as stack:
        layer, target = run_log.find_run(settings, word)
        path = settings.layer_path(layer)
        if target.card_numbers == "plain" != settings.card_numbers:
            raise UsageFault(f"{word} has plain card numbers; to bring them back, set LAKEHOUSE_CARD_NUMBERS=plain")
        days = f"LAKEHOUSE_HISTORY_DAYS={settings.history_days}"
        advice = f"{word} cannot be brought back: `make maintain` keeps runs for {days}"
        run_log.check_tables(layer, path, target, advice)
        begun, content_of = next_run(settings, layer, target.domain), target.built_in
        run = replace(target, run=begun.run, started=begun.started, kind="restore", content_of=content_of, warnings=())
        stack.enter_context(rolled_back_on_failure(path, run))
        with_csv = (
            unchanged_table(target.table(table.name), table, folders.table_path(path, table))
            for table in catalogue.tables_of(layer, target.domain)
            if table.csv
        )
        drafts = stack.enter_context(drafted(settings, with_csv, report))

        def restored(table: TableRun) -> TableRun:
            version = run_log.restore_version(path / target.domain / table.name, table.version, run.run)
            return replace(table, version=version)

        run = commit_run(path, run, map(restored, target.tables), drafts, run_log.read_rules(path, target))
    report.step(f"{layer}/{run.run}: {layer} is again what {word} left")
    return layer, run
