"""The runs of each layer: `make history` lists them, `make restore RUN=gold/12` makes an old one the present one."""

import re
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta

from conf.settings import Settings
from pipelines import catalogue, lake, records
from pipelines.errors import UsageFault
from pipelines.lake import HISTORY, LAYERS
from pipelines.publish import drafted
from pipelines.records import Run, TableRun
from pipelines.report import Report, grid
from pipelines.run import complete, next_run, undone_on_failure

SHOWN = 20


def history(settings: Settings, report: Report) -> None:
    """The last runs of each layer, newest first: what each built, and what changed against the run before it."""
    table = grid("run", "domain", "what", "finished (UTC)", "changes", "rows", "set aside", "seconds", left=5)
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for domain in catalogue.domains():
            runs = records.read_runs(path, domain=domain)
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


def find(settings: Settings, word: str) -> tuple[str, Run]:
    """The layer and the run that a word like `gold/12` names. Raises UsageFault."""
    layer, _, number = word.partition("/")
    if layer not in LAYERS or not re.fullmatch("[0-9]+", number):
        raise UsageFault(f"RUN is {word or 'missing'}; say one of `make history`, as in `make restore RUN=gold/12`")
    for run in records.read_runs(settings.layer_path(layer), run=int(number)):
        return layer, run
    raise UsageFault(f"{layer} has no run {number}; `make history` lists them")


def restore(settings: Settings, word: str, report: Report) -> tuple[str, Run]:
    """Makes the content of an old run a layer's present one, as a new run, its CSV too. Raises StorageFault where files
    of it are gone."""
    find(settings, word)  # before a lock is taken or a folder made
    with lake.locked(settings), ExitStack() as stack:
        layer, target = find(settings, word)
        path = settings.layer_path(layer)
        if target.card_numbers == "plain" != settings.card_numbers:
            raise UsageFault(f"{word} has plain card numbers; if that is meant, say LAKEHOUSE_CARD_NUMBERS=plain")
        mend = f"{word} cannot come back: `make maintain` keeps runs for LAKEHOUSE_HISTORY_DAYS={settings.history_days}"
        records.check(layer, path, target, mend)
        begun = next_run(settings, layer, target.domain, target.lake, target.upstream_run, target.source)
        run = replace(
            target, run=begun.run, started=begun.started, kind="restore", content_of=target.content, warnings=()
        )
        stack.enter_context(undone_on_failure(path, target.domain))
        drafts = []
        for table in (one for one in catalogue.tables(layer) if one.csv and one.domain == target.domain):
            done = target.table(table.name)
            files = lake.file_paths(lake.table_path(path, table), done.version)
            drafts.append(stack.enter_context(drafted(settings, table, done, files, report)))
        if drafts:
            stack.enter_context(lake.publishing(settings))
        rules = tuple(replace(rule, run=run.run) for rule in records.read_rules(path, target))
        commits = (
            replace(one, version=records.restore(path / target.domain / one.name, one.version)) for one in target.tables
        )
        run = complete(path, run, commits, rules, drafts)
    report.step(f"{layer}/{run.run}: {layer} is again what {word} left")
    return layer, run
