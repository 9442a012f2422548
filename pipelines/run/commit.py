"""The end of a run: the commits of its tables, its CSVs, its row in the run log; or nothing of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.console import Report
from pipelines.core.errors import Fault
from pipelines.core.signals import deferred_signals
from pipelines.lake import run_log
from pipelines.lake.engine import HASHING
from pipelines.lake.runs import IngestedFile, RuleRun, Run, TableRun
from pipelines.lake.staging import StagedTable
from pipelines.run.summary import show_table

if TYPE_CHECKING:
    from pipelines.export.csv import Draft


def collect(layer: str, building: Iterator[StagedTable], report: Report) -> list[StagedTable]:
    """All of a layer's tables, written and proved; where one fails, no file of the others stays either."""
    built: list[StagedTable] = []
    try:
        for one in building:
            built.append(one)
            if not one.is_unchanged:
                show_table(report, layer, one.table.domain, one.table_run)
    except BaseException:
        discard(built)
        raise
    if all(one.is_unchanged for one in built):
        report.step(f"{layer}: nothing changed")
    return built


def discard(built: list[StagedTable]) -> None:
    for one in built:
        one.discard()


def commit_run(
    path: Path,
    run: Run,
    commits: Iterable[TableRun],
    rules: tuple[RuleRun, ...] = (),
    drafts: "Mapping[str, Draft] | None" = None,
    files: Sequence[IngestedFile] = (),
) -> Run:
    """Lets `commits` make the commits of tables, names the CSVs (`drafts`, by table), and records the run: the
    commit point. If that fails, the old CSVs are back."""
    with deferred_signals(), ExitStack() as published:
        tables = {table_run.name: table_run for table_run in commits}
        for name, csv in (drafts or {}).items():
            published.enter_context(csv.published())
            tables[name] = replace(tables[name], csv_sha256=csv.sha256)
        run = replace(run, tables=tuple(tables.values()), finished=datetime.now(UTC))
        run_log.record(path, run, rules, files)
    return run


def commit_staged(
    path: Path, run: Run, built: list[StagedTable], report: Report, drafts: "Mapping[str, Draft] | None" = None
) -> Run:
    """The commits of what was built; where one fails, what was not committed leaves no file."""
    left = list(built)

    def commits() -> Iterator[TableRun]:
        while left:
            yield left[0].commit()
            left.pop(0)

    run = replace(run, hashing=HASHING, warnings=report.new_warnings())
    rules, files = tuple(rule for one in built for rule in one.rules), [file for one in built for file in one.taken]
    try:
        return commit_run(path, run, commits(), rules, drafts, files)
    except BaseException:
        discard(left)
        raise


@contextmanager
def rolled_back_on_failure(path: Path, domain: str) -> Iterator[None]:
    """After a failure the tables are as the last complete run left them, which may be the one that was just recorded;
    if that fails, too, the next run does it."""
    try:
        yield
    except BaseException:
        with deferred_signals(), suppress(Fault):
            run_log.roll_back(path, run_log.last_run(path, domain))
        raise
