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
from pipelines.run.begin import next_run
from pipelines.run.commit import commit_run, rolled_back_on_failure


def restore(settings: Settings, word: str, report: Report) -> tuple[str, Run]:
    """Makes the content of an old run a layer's present one, as a new run, its CSV too. Raises StorageFault where files
    of it are gone."""
    find_run(settings, word)  # before a lock is taken or a folder made
    with folders.locked(settings), ExitStack() as stack:
        layer, target = find_run(settings, word)
        path = settings.layer_path(layer)
        if target.card_numbers == "plain" != settings.card_numbers:
            raise UsageFault(f"{word} has plain card numbers; if that is meant, say LAKEHOUSE_CARD_NUMBERS=plain")
        mend = f"{word} cannot come back: `make maintain` keeps runs for LAKEHOUSE_HISTORY_DAYS={settings.history_days}"
        run_log.check_tables(layer, path, target, mend)
        begun = next_run(settings, layer, target.domain, target.lake, target.upstream_run, target.source)
        run = replace(
            target, run=begun.run, started=begun.started, kind="restore", content_of=target.content, warnings=()
        )
        stack.enter_context(rolled_back_on_failure(path, target.domain))
        drafts = []
        for table in (one for one in catalogue.tables(layer) if one.csv and one.domain == target.domain):
            done = target.table(table.name)
            files = delta.file_paths(folders.table_path(path, table), done.version)
            drafts.append(stack.enter_context(drafted(settings, table, done, files, report)))
        if drafts:
            stack.enter_context(folders.publishing(settings))
        rules = tuple(replace(rule, run=run.run) for rule in run_log.read_rules(path, target))
        commits = (
            replace(one, version=run_log.restore_version(path / target.domain / one.name, one.version))
            for one in target.tables
        )
        run = commit_run(path, run, commits, rules, drafts)
    report.step(f"{layer}/{run.run}: {layer} is again what {word} left")
    return layer, run
