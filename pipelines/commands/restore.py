"""`make restore RUN=gold/12`: brings an earlier run back, with its CSV; the next run replaces it."""

from contextlib import ExitStack
from dataclasses import replace

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.export.publish import drafted
from pipelines.lake import delta, folders, run_log
from pipelines.lake.run_log import find_run
from pipelines.lake.runs import Run
from pipelines.run.lifecycle import commit_run, next_run, rolled_back_on_failure


def restore(settings: Settings, word: str, report: Report) -> tuple[str, Run]:
    """Brings back what the run named by `word` left, with its CSV, as a new run. Raises StorageFault if files of it are
    gone."""
    find_run(settings, word)  # before a lock is taken or a folder made
    with folders.locked(settings), ExitStack() as stack:
        layer, target = find_run(settings, word)
        path = settings.layer_path(layer)
        if target.card_numbers == "plain" != settings.card_numbers:
            raise UsageFault(f"{word} has plain card numbers; to bring them back, set LAKEHOUSE_CARD_NUMBERS=plain")
        days = f"LAKEHOUSE_HISTORY_DAYS={settings.history_days}"
        advice = f"{word} cannot be brought back: `make maintain` keeps runs for {days}"
        run_log.check_tables(layer, path, target, advice)
        begun = next_run(settings, layer, target.domain)
        run = replace(
            target, run=begun.run, started=begun.started, kind="restore", content_of=target.built_in, warnings=()
        )
        stack.enter_context(rolled_back_on_failure(path, target.domain))
        drafts = {}
        for table in (table for table in catalogue.tables_of(layer, target.domain) if table.csv):
            table_run = target.table(table.name)
            files = delta.file_paths(folders.table_path(path, table), table_run.version)
            drafts[table.name] = stack.enter_context(drafted(settings, table, table_run, files, report))
        if drafts:
            stack.enter_context(folders.publishing(settings))
        rules = tuple(replace(rule, run=run.run) for rule in run_log.read_rules(path, target))
        commits = (
            replace(
                table_run, version=run_log.restore_version(path / target.domain / table_run.name, table_run.version)
            )
            for table_run in target.tables
        )
        run = commit_run(path, run, commits, drafts, rules)
    report.step(f"{layer}/{run.run}: {layer} is again what {word} left")
    return layer, run
