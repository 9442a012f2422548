"""The end of a run: the commits of its tables, its CSVs, its row in the run log; or nothing of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.console import Report
from pipelines.core.errors import Fault
from pipelines.core.signals import deferred_signals
from pipelines.lake import run_log
from pipelines.lake.engine import HASHING
from pipelines.lake.runs import IngestedFile, RuleRun, Run, TableRun
from pipelines.lake.versions import StagedTable
from pipelines.run.summary import show_table

if TYPE_CHECKING:
    from pipelines.export.csv import Draft


def stage(layer: str, building: Iterator[StagedTable], staged: list[StagedTable], report: Report) -> None:
    """Adds a layer's tables to `staged`, each as soon as it is written and proved."""
    for table in building:
        staged.append(table)
        if not table.is_unchanged:
            show_table(report, layer, table.table.domain, table.table_run)
    if all(table.is_unchanged for table in staged):
        report.step(f"{layer}: nothing changed")


@contextmanager
def discarded_on_failure(staged: list[StagedTable]) -> Iterator[None]:
    """After a failure no table that is in `staged` by then leaves a file."""
    try:
        yield
    except BaseException:
        while staged:
            staged.pop().discard()
        raise


@dataclass(frozen=True)
class RunContent:
    """What a run commits. `commits` makes the commit of one table after the other; `drafts` are CSVs, by table; `rules`
    and `files` go to the run log."""

    commits: Iterable[TableRun]
    drafts: "Mapping[str, Draft]" = field(default_factory=dict)
    rules: Sequence[RuleRun] = ()
    files: Sequence[IngestedFile] = ()


def commit_run(path: Path, run: Run, content: RunContent) -> Run:
    """Commits the tables, gives the CSVs their names and records the run: the commit point. If that fails, the earlier
    CSVs are back."""
    with deferred_signals(), ExitStack() as published:
        tables = {table_run.name: table_run for table_run in content.commits}
        for name, csv in content.drafts.items():
            published.enter_context(csv.published())
            tables[name] = replace(tables[name], csv_sha256=csv.sha256)
        run = replace(run, tables=tuple(tables.values()), finished=datetime.now(UTC))
        run_log.record(path, run, tuple(content.rules), content.files)
    return run


def commit_staged(
    path: Path, run: Run, staged: list[StagedTable], report: Report, drafts: "Mapping[str, Draft] | None" = None
) -> Run:
    """Commits tables, each of which leaves `staged` then."""

    def commits() -> Iterator[TableRun]:
        while staged:
            yield staged[0].commit()
            del staged[0]

    run = replace(run, hashing=HASHING, warnings=report.new_warnings())
    rules = [rule for table in staged for rule in table.rules]
    files = [file for table in staged for file in table.taken]
    return commit_run(path, run, RunContent(commits(), drafts or {}, rules, files))


@contextmanager
def rolled_back_on_failure(path: Path, domain: str) -> Iterator[None]:
    """After a failure the tables are as the last complete run left them, which may be the run that was just recorded.
    If that fails, too, the next run does it."""
    try:
        yield
    except BaseException:
        with deferred_signals(), suppress(Fault):
            run_log.roll_back(path, run_log.last_run(path, domain))
        raise
