"""The results as tables: medians over the rounds, with the least and the most."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Group
from rich.table import Table

from bench.rounds import Numbers


@dataclass(frozen=True)
class Result:
    """Of a size: the machine, and for each round the numbers of each way or night."""

    size: int
    machine: dict[str, str]
    rounds: list[dict[str, Numbers]]

    @property
    def names(self) -> list[str]:
        return list(self.rounds[0])

    def values(self, name: str, number: str) -> list[float]:
        """A number of a way in each round; nothing if the way was wrong in any of them."""
        numbers = [ways[name] for ways in self.rounds if name in ways]
        if any("wrong" in each for each in numbers):
            return []
        return [value for each in numbers if isinstance(value := each.get(number), int | float)]

    def median(self, name: str, number: str) -> float | None:
        values = self.values(name, number)
        return median(values) if values else None


def read(results: Path) -> dict[str, Result]:
    """All results by the name of their file, `nights-…` last, each kind by size."""
    files = sorted(results.glob("*.json"), key=lambda file: ("-" in file.stem, len(file.stem), file.stem))
    return {file.stem: Result(**json.loads(file.read_text("utf-8"))) for file in files}


def wrong(result: Result) -> list[str]:
    """What was wrong, without repetitions: way, then table and column."""
    by_way = [(name, numbers.get("wrong")) for ways in result.rounds for name, numbers in ways.items()]
    return list(
        dict.fromkeys(f"{name}: {what}" for name, columns in by_way if isinstance(columns, list) for what in columns)
    )


# What people call the ways; results and `--ways` have their letters.
NAMES = {"E": "plain Spark", "T": "tuned Spark", "D": "DuckDB"}


def called(way: str) -> str:
    """The name of a way or night."""
    return NAMES.get(way, way)


# What a table shows of each way: the name of a number and its divisor.
LINES = {
    "whole, s": ("seconds", 1),
    "all steps, start-up aside, s": ("work", 1),
    "bronze, s": ("bronze", 1),
    "bronze alone, s": ("bronze_alone", 1),
    "silver, s": ("silver", 1),
    "gold and CSV, s": ("gold_csv", 1),
    "CSV alone, s": ("csv", 1),
    "CPU, s": ("cpu", 1),
    "peak memory, GB": ("peak", 1024),
    "written, MB": ("bytes", 10**6),
    "files": ("files", 1),
}
FLOORS = {
    "COPY of movimento to nowhere, two readers": ("F", "copy"),
    "PostgreSQL to Parquet, all tables (DuckDB)": ("F", "parquet"),
    "the CSV from that Parquet, no lake (DuckDB)": ("F", "join_csv"),
    "the CSV from our gold's files (DuckDB)": ("ours", "same_files"),
}


def lines(result: Result) -> list[list[str]]:
    """A header with the ways, then a line for each number. A way that was wrong has no numbers."""
    names = [name for name in result.names if name != "F"]
    body = []
    for what, (number, unit) in LINES.items():
        cells = [_cell([float(value) / unit for value in result.values(name, number)]) for name in names]
        if any(cells) or number == "seconds":
            body.append([what, *cells])
    if "whole" in names:
        body.append(["to the whole run, start-up aside", *(_ratio(result, name, "whole", "work") for name in names)])
    if "ours" in names:
        body.append(["ours to this, whole", *(_ratio(result, "ours", name, "seconds") for name in names)])
    for name in {what.split(":")[0] for what in wrong(result)} & set(names):
        body[0][1 + names.index(name)] = "wrong"
    return [["", *map(called, names)], *body]


def floors(result: Result) -> list[list[str]]:
    """A header, then a line for each floor that was measured."""
    measured = {what: result.values(*where) for what, where in FLOORS.items()}
    return [["floor", "s"], *([what, _cell(values)] for what, values in measured.items() if values)]


def shown(result: Result) -> Group:
    """Both for the terminal, and what was wrong."""
    tables = []
    for header, *body in (lines(result), floors(result)):
        table = Table(box=None)
        for name in header:
            table.add_column(name, justify="right" if name != header[0] else "left")
        for line in body:
            table.add_row(*line)
        tables += [table] if body else []
    return Group(f"\n{result.size:,} movements, rounds: {len(result.rounds)}", *tables, *wrong(result))


def _cell(values: list[float]) -> str:
    """The median, with the least and the most."""
    if not values:
        return ""
    middle = median(values)
    digits = 0 if middle >= 100 or all(value.is_integer() for value in values) else 1 if middle >= 10 else 2
    least, most = f"{min(values):,.{digits}f}", f"{max(values):,.{digits}f}"
    return f"{middle:,.{digits}f}" + (f" ({least}-{most})" if least != most else "")


def _ratio(result: Result, name: str, to: str, number: str) -> str:
    value, other = result.median(name, number), result.median(to, number)
    return f"{value / other:.2f}" if value is not None and other else ""
