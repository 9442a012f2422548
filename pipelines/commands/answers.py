"""`make answers`: prints the gold tables that answer a question, except those that are exported as CSV. No JVM."""

from conf.contract import Table
from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.sql import identifier
from pipelines.lake import run_log, runs
from pipelines.lake.engine import engine
from pipelines.lake.versions import table_version

ANSWER_ROWS = 15


def answers(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Shows the first rows of each table, in the order in which a person reads them. Raises QualityFault if gold has no
    run."""
    answers = [(run, table) for domain in domains for run, table in _of_domain(settings, domain)]
    if not answers:
        raise run_log.no_complete_run(settings, "gold")
    for run, table in answers:
        content = table_version(settings.gold_path, run, table)
        names = [column.name for column in table.columns]
        order = (
            f"{identifier(name.lstrip('-'))}{' DESC' * name.startswith('-')}" for name in table.order or table.keys
        )
        shown = ", ".join(f"{identifier(name)}::varchar" for name in names)
        with engine(f"gold.{table.name}") as db:
            rows = db.execute(
                f"SELECT {shown} FROM {content.sql} ORDER BY {', '.join(order)} LIMIT {ANSWER_ROWS}"
            ).fetchall()
        report.say(f"\ngold.{table.name}: {table.comment}")
        lines = grid(*names, left=0)
        for shown_column, column in zip(lines.columns, table.columns, strict=True):
            shown_column.justify = "left" if column.type == "string" else "right"
        for row in rows:
            lines.add_row(*("" if value is None else value for value in row))
        report.show(lines)
        if (more := run.table(table.name).rows_out - len(rows)) > 0:
            report.say(f"… {more:,} more rows; all: make export TABLES={table.name}")


def _of_domain(settings: Settings, domain: str) -> list[tuple[runs.Run, Table]]:
    run = run_log.last_run(settings.gold_path, domain)
    if run is None:
        return []
    run_log.check_tables("gold", settings.gold_path, run)
    return [(run, table) for table in catalogue.tables_of("gold", domain) if not table.csv]
