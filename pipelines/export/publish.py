"""Gold as files for people: the CSVs of a run, and the files that somebody asks for."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.export import csv
from pipelines.lake import delta, folders, run_log
from pipelines.lake.run_log import complete_run
from pipelines.lake.runs import Run, TableRun, table_runs
from pipelines.lake.versions import StagedTable


@contextmanager
def drafted(
    settings: Settings, tables: Iterable[StagedTable], report: Report, previous: Run | None = None
) -> Iterator[dict[str, csv.Draft]]:
    """The CSVs of tables of gold, by table, which nobody sees until they are published; each is proved to have each row
    that the table has. What the CSV of the run `previous` has is copied. Raises QualityFault, StorageFault."""
    drafts = {}
    with ExitStack() as stack:
        for staged in tables:
            table, name = staged.table, staged.table.name
            report.expect("csv", name, staged.table_run.rows_out)
            report.progress("csv", name)
            earlier, appended = table_runs(previous).get(name), partial(report.progress, "csv", name)
            drafting = csv.draft(settings, table, staged.paths, earlier, appended)
            drafts[name] = stack.enter_context(drafting)
            _prove(drafts[name], staged.table_run)
            report.finished("csv", name)
        if drafts:
            stack.enter_context(folders.publishing(settings))
        yield drafts


def _prove(file: csv.Draft, table_run: TableRun) -> None:
    """Raises QualityFault unless a file has each of the rows that the run recorded."""
    known = table_run.totals if table_run.columns else file.totals  # older software recorded no sums
    if file.rows != table_run.rows_out or any(total != known[name] for name, total in file.totals.items()):
        problem = f"{file.rows:,} records for {table_run.rows_out:,} rows of gold, or another sum of amounts"
        raise QualityFault(f"{file.final}: {problem}; it stays as it was")


def export(settings: Settings, tables: Iterable[Table], report: Report, as_parquet: bool = False) -> None:
    """Writes each table of gold's last complete run as a file, even while another run works. A CSV that a newer run
    wrote meanwhile stays."""
    for table in tables:
        run = complete_run(settings, "gold", table.domain)
        run_log.check_tables("gold", settings.gold_path, run)
        table_run = run.table(table.name)
        files = delta.file_paths(folders.table_path(settings.gold_path, table), table_run.version)
        drafting = (csv.parquet_draft if as_parquet else csv.draft)(settings, table, files)
        with drafting as file, folders.publishing(settings):
            _prove(file, table_run)
            if table.csv and complete_run(settings, "gold", table.domain).built_in != run.built_in:
                report.step(f"{file.final}: a newer run has written it meanwhile")
                continue
            with file.published():
                pass
        report.step(f"{file.final}: {file.rows:,} records of gold's run {run.run}")
