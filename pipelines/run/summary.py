"""What a run shows: a line for each table when it is done, the table of all of them at its end."""

from pathlib import Path
from typing import Any

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.names import EMBEDDED
from pipelines.lake import folders
from pipelines.lake.runs import Run, TableRun


def show_table(report: Report, layer: str, domain: str, done: TableRun) -> None:
    if not done.is_beside:
        report.step(_line(layer, done), **_numbers(layer, domain, done))


def show_runs(report: Report, runs: list[tuple[str, Run]]) -> None:
    """The table of a whole run, then the warnings."""
    report.settle()
    table = grid("layer", "table", "rows in", "rows out", "set aside", "seconds", "how", left=2)
    table.columns[-1].justify = "left"
    for layer, run in runs:
        for done in run.tables:
            if not done.is_beside:
                numbers = (f"{done.rows_in:,}", f"{done.rows_out:,}", f"{done.set_aside:,}", f"{done.seconds:.1f}")
                table.add_row(layer, done.name, *numbers, done.how)
                if report.as_json:
                    known = _numbers(layer, run.domain, done)
                    report.say(_line(layer, done), run=f"{layer}/{run.run}", **known)
    if not report.as_json:
        report.say("")
        report.show(table)
    for source in dict.fromkeys(run.source for _, run in runs):
        report.say(f"source: {source}{' (fake data)' if source == EMBEDDED else ''}")
    report.show_warnings()


def _line(layer: str, done: TableRun) -> str:
    aside = f", {done.set_aside:,} set aside" if done.set_aside else ""
    return f"{layer}.{done.name}: {done.rows_out:,} rows{aside}, {done.how}, {done.seconds:.1f} s"


def _numbers(layer: str, domain: str, done: TableRun) -> dict[str, Any]:
    """What a JSON line has of a table."""
    named = {"layer": layer, "domain": domain, "table": done.name, "how": done.how, "seconds": round(done.seconds, 3)}
    return named | {"rows_in": done.rows_in, "rows_out": done.rows_out, "set_aside": done.set_aside}


def show(settings: Settings, runs: list[tuple[str, Run]], report: Report, lines: int = 0) -> None:
    """The table of the runs and, of gold, the CSV: path, size and, where the people in it are fake, first lines."""
    if not runs:
        return
    show_runs(report, runs)
    built = [run.domain for layer, run in runs if layer == "gold"]
    for table in (table for table in catalogue.tables("gold") if table.csv and table.domain in built):
        path = folders.csv_path(settings, table)
        here = Path.cwd()
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        report.say(f"\n{shown} ({path.stat().st_size:,} bytes)")
        with path.open(encoding="utf-8", newline="") as file:
            for line, _ in zip(file, range(lines), strict=False):
                report.sample("  " + line.rstrip("\n"))
