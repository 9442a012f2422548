"""Gold as files for people: those of a run, and those that somebody asks for."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.lake import delta, folders, run_log
from pipelines.lake.run_log import complete_run
from pipelines.lake.runs import TableRun

if TYPE_CHECKING:
    from pipelines.export.csv import Draft, PreviousCsv


@contextmanager
def drafted(
    settings: Settings,
    table: Table,
    done: TableRun,
    files: list[str],
    report: Report,
    before: "PreviousCsv | None" = None,
) -> "Iterator[Draft]":
    """The CSV of a table's files, proved to have each of the rows that `done` has; `before` is the last run's."""
    from pipelines.export.csv import draft

    report.progress("csv", table.name, 0)
    with draft(settings, table, files, before) as csv:
        _prove(csv, done)
        yield csv


def _prove(file: "Draft", done: TableRun) -> None:
    """Raises QualityFault unless a file has each of the rows that `done` has."""
    wrong = [name for name, total in file.totals.items() if done.totals[name] != total]
    if file.rows != done.rows_out or wrong:
        said = f"{file.rows:,} records for {done.rows_out:,} rows of gold, or another sum of amounts"
        raise QualityFault(f"{file.final}: {said}; it stays as it was")


def export(settings: Settings, tables: Iterable[Table], report: Report, as_parquet: bool = False) -> None:
    """Writes tables of gold's last complete run as a file each, while others run, too; of a table that a run exports, a
    newer run's CSV stays."""
    from pipelines.export.csv import draft, parquet_draft

    for table in tables:
        run = complete_run(settings, "gold", table.domain)
        run_log.check_tables("gold", settings.gold_path, run)
        done = run.table(table.name)
        files = delta.file_paths(folders.table_path(settings.gold_path, table), done.version)
        drafting = (parquet_draft if as_parquet else draft)(settings, table, files)
        with drafting as file, folders.publishing(settings):
            _prove(file, done)
            if table.csv and complete_run(settings, "gold", table.domain).content != run.content:
                report.step(f"{file.final}: a newer run has written it meanwhile")
                continue
            with file.published():
                pass
        report.step(f"{file.final}: {file.rows:,} records of gold's run {run.run}")
