"""The begin of a run: what makes it unsafe, its number, what it builds on. And its end: its commit, all or nothing."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import Fault, StorageFault, UsageFault
from pipelines.core.names import EMBEDDED, LAYERS, downstream_layer, upstream_layer
from pipelines.core.points import Point, crash_point
from pipelines.core.signals import deferred_signals
from pipelines.export.csv import Draft
from pipelines.lake import delta, durable, run_log
from pipelines.lake.engine import HASHING
from pipelines.lake.runs import IngestedFile, RuleRun, Run, TableRun
from pipelines.lake.versions import StagedTable
from pipelines.run.summary import show_table


def check_layers(settings: Settings, domain: str, layers: Sequence[str] = LAYERS) -> None:
    """Raises StorageFault if a table, or the record of a run, is not as the last complete runs left it."""
    for layer in layers:
        path = settings.layer_path(layer)
        if (run := run_log.last_run(path, domain)) is None:
            continue
        if (downstream := downstream_layer(layer)) is not None:
            derived = run_log.last_run(settings.layer_path(downstream), domain)
            if derived and derived.lake == run.lake and (derived.upstream_run or 0) > run.run:
                delta.require_end(path / run_log.RUNS)
                missing = f"run {derived.upstream_run}, from which {downstream} was built, is missing"
                raise StorageFault(
                    f"table {path / run_log.RUNS}: {missing}; restore it from a backup, or delete {path}"
                )
        run_log.check_tables(layer, path, run)


def origin_of(settings: Settings, layer: str, previous: Run | None) -> Run | None:
    """The run that a layer's previous run was built from; None if its files are gone."""
    upstream = upstream_layer(layer)
    path = settings.layer_path(upstream)
    run = run_log.upstream_of(path, previous)
    with suppress(StorageFault):
        if run:
            run_log.check_tables(upstream, path, run)
        return run
    return None


def next_run(settings: Settings, layer: str, domain: str) -> Run:
    """A run that begins now, without a source yet. Its number is above those of the layer's runs and above those that
    the layer downstream was built from, whatever the clock says."""
    numbers = [run.run for run in run_log.heads(settings.layer_path(layer))]
    if (downstream := downstream_layer(layer)) is not None:
        numbers += [run.upstream_run or 0 for run in run_log.heads(settings.layer_path(downstream))]
    now = datetime.now(UTC)
    return Run(max(numbers, default=0) + 1, "", domain, None, "", "", now, now)


def refuse_other_source(layer: str, path: Path, previous: Run | None, source: str) -> None:
    """Fake members never replace real ones, nor the reverse. Raises UsageFault naming both sources."""
    if previous and (previous.source == EMBEDDED) != (source == EMBEDDED):
        filled, now = (f"the {name} server" if name == EMBEDDED else name for name in (previous.source, source))
        raise UsageFault(
            f"{layer} in {path} was filled from {filled}, and would now be filled from {now}; "
            "name the right PostgreSQL, or another lake with LAKEHOUSE_ROOT, or start over with `make reset`"
        )


def stage(layer: str, building: Generator[StagedTable, None, None], report: Report) -> list[StagedTable]:
    """A layer's tables, each shown as soon as it is written and proved; its files go to the disk while the next ones
    are built. After a failure nothing builds any more."""
    staged = []
    with closing(building):
        for table in building:
            staged.append(table)
            table.require_values()
            durable.begin(table.written)
            report.finished(layer, table.table_run.name)
            if not table.is_unchanged:
                show_table(report, layer, table.table.domain, table.table_run)
    if all(table.is_unchanged for table in staged):
        report.passing(f"{layer}: nothing changed")
    return staged


def commit_run(
    path: Path,
    run: Run,
    commits: Iterable[TableRun],
    drafts: Mapping[str, Draft] | None = None,
    rules: Sequence[RuleRun] = (),
    files: Sequence[IngestedFile] = (),
) -> Run:
    """Commits the tables, one after the other, gives the CSVs (`drafts`, by table) their names and records the run with
    its rules and files: the commit point. If that fails, the earlier CSVs are back."""
    with deferred_signals(), ExitStack() as published:
        tables = {table_run.name: table_run for table_run in commits}
        for name, csv in (drafts or {}).items():
            published.enter_context(csv.published())
            tables[name] = replace(tables[name], csv_sha256=csv.sha256, csv_parts=csv.parts)
        run = replace(run, tables=tuple(tables.values()), finished=datetime.now(UTC))
        run = run_log.record(path, run, rules, files)
    crash_point(Point.RECORDED)
    return run


def commit_staged(
    path: Path, run: Run, staged: list[StagedTable], report: Report, drafts: Mapping[str, Draft] | None = None
) -> Run:
    """Commits staged tables, with the CSVs of `drafts`, the rules and the files that the tables have."""
    run = replace(run, hashing=HASHING, warnings=report.new_warnings())
    rules = [rule for table in staged for rule in table.rules]
    files = [file for table in staged for file in table.taken]
    return commit_run(path, run, (table.commit(run.run) for table in staged), drafts, rules, files)


def sweep(path: Path, run: Run) -> None:
    """Removes the files of a run in `path` that no head names, as far as that is possible."""
    for table in (path / run.domain).glob("*"):
        with suppress(Fault):
            delta.sweep(table, run.run)


@contextmanager
def rolled_back_on_failure(path: Path, run: Run) -> Iterator[None]:
    """After a failure the tables are as the last complete run left them, which may be `run` if it was just recorded. No
    file stays that it wrote in vain. If that fails, too, the next run rolls back."""
    try:
        yield
    except BaseException:
        with deferred_signals():
            sweep(path, run)
            with suppress(Fault):
                run_log.roll_back(path, run.domain)
        raise
