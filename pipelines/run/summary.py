"""What a run shows: a line for each table as soon as it is built, and a summary at the end."""

from pathlib import Path
from typing import Any

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.names import EMBEDDED
from pipelines.lake import folders
from pipelines.lake.runs import Run, TableRun


def show_table(report: Report, layer: str, domain: str, table_run: TableRun) -> None:
    if not table_run.is_beside:
        report.step(_line(layer, table_run), **_numbers(layer, domain, table_run))


def show(settings: Settings, runs: list[tuple[str, Run]], report: Report, lines: int = 0) -> None:
    """The summary of the runs and, if gold is among them, each CSV: its path, its size and its first `lines`, which are
    zero unless the people in them are fake."""
    if not runs:
        return
    report.settle()
    summary = grid("layer", "table", "rows in", "rows out", "set aside", "seconds", "how", left=2)
    summary.columns[-1].justify = "left"
    for layer, run in runs:
        for built in (table_run for table_run in run.tables if not table_run.is_beside):
            numbers = (f"{built.rows_in:,}", f"{built.rows_out:,}", f"{built.set_aside:,}", f"{built.seconds:.1f}")
            summary.add_row(layer, built.name, *numbers, built.how)
            if report.as_json:
                report.say(_line(layer, built), run=f"{layer}/{run.run}", **_numbers(layer, run.domain, built))
    if not report.as_json:
        report.say("")
        report.show(summary)
    for source in dict.fromkeys(run.source for _, run in runs):
        report.say(f"source: {source}{' (fake data)' if source == EMBEDDED else ''}")
    report.show_warnings()
    built_domains = [run.domain for layer, run in runs if layer == "gold"]
    for table in (table for table in catalogue.tables("gold") if table.csv and table.domain in built_domains):
        path = folders.csv_path(settings, table)
        here = Path.cwd()
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        report.say(f"\n{shown} ({path.stat().st_size:,} bytes)")
        with path.open(encoding="utf-8", newline="") as file:
            for line, _ in zip(file, range(lines), strict=False):
                report.sample("  " + line.rstrip("\n"))


def _line(layer: str, table_run: TableRun) -> str:
    aside = f", {table_run.set_aside:,} set aside" if table_run.set_aside else ""
    return f"{layer}.{table_run.name}: {table_run.rows_out:,} rows{aside}, {table_run.how}, {table_run.seconds:.1f} s"


def _numbers(layer: str, domain: str, table_run: TableRun) -> dict[str, Any]:
    """A table's fields in a JSON line."""
    names = {"layer": layer, "domain": domain, "table": table_run.name, "how": table_run.how}
    rows = {"rows_in": table_run.rows_in, "rows_out": table_run.rows_out, "set_aside": table_run.set_aside}
    return {**names, "seconds": round(table_run.seconds, 3), **rows}
