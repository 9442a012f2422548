"""`make answers`: prints the gold tables that answer a question, except those that are exported as CSV. No JVM."""

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.sql import identifier
from pipelines.lake import run_log
from pipelines.lake.engine import engine
from pipelines.lake.versions import table_version

ANSWER_ROWS = 15


def answers(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Shows the first rows of each table, in a person's reading order. Raises QualityFault if gold has no run."""
    runs = [run for domain in domains if (run := run_log.last_run(settings.gold_path, domain))]
    for run in runs:
        run_log.check_tables("gold", settings.gold_path, run)
    answers = [(run, table) for run in runs for table in catalogue.tables_of("gold", run.domain) if not table.csv]
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
