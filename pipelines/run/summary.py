"""What a run shows: a line for each table as soon as it is built, and a summary at the end."""

import csv
from itertools import islice
from pathlib import Path
from typing import Any

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.grid import Grid, marked
from pipelines.core.names import EMBEDDED, LAYERS
from pipelines.lake import folders
from pipelines.lake.runs import Run, TableRun


def show_table(report: Report, layer: str, domain: str, table_run: TableRun) -> None:
    if not table_run.is_beside:
        report.passing(_line(layer, table_run), **_numbers(layer, domain, table_run))


def show(settings: Settings, runs: list[tuple[str, Run]], report: Report, lines: int = 0) -> None:
    """The summary of the runs and, if gold is among them, each CSV: its path, its size and its first `lines`, which are
    zero unless the people in them are fake."""
    if not runs:
        return
    report.settle()
    if report.as_json:
        if report.waited:
            report.say(f"spark.start: {report.waited:.1f} s", layer="spark", seconds=round(report.waited, 3))
        for layer, run in runs:
            for table_run in (table_run for table_run in run.tables if not table_run.is_beside):
                known = _numbers(layer, run.domain, table_run)
                report.say(_line(layer, table_run), run=f"{layer}/{run.run}", **known)
    else:
        report.say("")
        report.show(summary_grid(runs, report.waited))
    for source in dict.fromkeys(run.source for _, run in runs):
        report.say(f"source: {source}{' (fake data)' if source == EMBEDDED else ''}")
    report.show_warnings()
    here, gold = Path.cwd(), {run.domain: run for layer, run in runs if layer == "gold"}
    for table in (table for table in catalogue.tables("gold") if table.csv and table.domain in gold):
        path, rows = folders.csv_path(settings, table), gold[table.domain].table(table.name).rows_out
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        report.say("", f"{shown}: {rows:,} rows, {path.stat().st_size:,} bytes")
        if lines and not report.as_json:  # rows of people go to no log
            report.show(first_records(path, lines))


def summary_grid(runs: list[tuple[str, Run]], waited: float) -> Grid:
    """A row a table, and one for the seconds spent waiting for Spark, before the first layer that needs it."""
    words = ("layer", "table", "how")
    titles = ("layer", "table", "rows in", "rows out", "set aside", "seconds", "how")
    summary = Grid(titles, words, spare=("rows in",), below=("how",))
    for layer, run in runs:
        if layer != LAYERS[0] and waited:
            summary.add_row("spark", "start", "", "", "", f"{waited:.1f}", "")
            waited = 0.0
        for table_run in (table_run for table_run in run.tables if not table_run.is_beside):
            aside = marked(table_run.set_aside, "yellow")
            numbers = (f"{table_run.rows_in:,}", f"{table_run.rows_out:,}", aside, f"{table_run.seconds:.1f}")
            summary.add_row(layer, table_run.name, *numbers, table_run.how)
    return summary


def first_records(path: Path, number: int) -> Grid:
    """The header and the first records of a CSV; a screen shows as many of the first columns as it has room for."""
    with path.open(encoding="utf-8", newline="") as file:
        titles, *records = islice(csv.reader(file), number)
    sample = Grid(tuple(titles), words=tuple(titles), spare=tuple(titles[:0:-1]))
    for record in records:
        sample.add_row(*record)
    return sample


def _line(layer: str, table_run: TableRun) -> str:
    aside = f", {table_run.set_aside:,} set aside" if table_run.set_aside else ""
    return f"{layer}.{table_run.name}: {table_run.rows_out:,} rows{aside}, {table_run.how}, {table_run.seconds:.1f} s"


def _numbers(layer: str, domain: str, table_run: TableRun) -> dict[str, Any]:
    """A table's fields in a JSON line."""
    names = {"layer": layer, "domain": domain, "table": table_run.name, "how": table_run.how}
    rows = {"rows_in": table_run.rows_in, "rows_out": table_run.rows_out, "set_aside": table_run.set_aside}
    return {**names, "seconds": round(table_run.seconds, 3), **rows}
