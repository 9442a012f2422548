"""Writes what was measured into docs/performance.md, between its marks, and draws the whole runs of each size."""

import re
from dataclasses import dataclass
from pathlib import Path

from bench.tables import Result, called, floors, lines, read, wrong

MARKS = "<!-- measured: `python -m bench report` -->", "<!-- end -->"
Point = tuple[str, str, str]  # a result, a way or night in it, a number of that
SIZES = {"10 thousand": "10000", "5 million": "5000000", "20 million": "20000000"}
NIGHTS = "nights-5000000"


@dataclass(frozen=True)
class Bar:
    """A promise: the first number is at most `most` times the second; without a second, at most `most`."""

    what: str
    most: float
    first: Point
    second: Point | None = None


def _to(size: str, number: str, rival: str, most: float) -> Bar:
    """A bar between our number and the same number of a rival."""
    at, shown = SIZES[size], {"seconds": "whole run", "bronze": "bronze alone, start-up aside", "csv": "CSV"}[number]
    own = {"bronze": "bronze_alone"}.get(number, number)
    return Bar(f"{shown}, {size}, to {called(rival)}", most, (at, "ours", own), (at, rival, number))


def _ours(what: str, most: float, number: str, size: str, to_number: str, to_size: str) -> Bar:
    """A bar between two numbers of ours."""
    return Bar(what, most, (SIZES[size], "ours", number), (SIZES[to_size], "ours", to_number))


def _night(night: str, most: float) -> Bar:
    return Bar(f"{night}, 5 million, to the whole run", most, (NIGHTS, night, "work"), (NIGHTS, "whole", "work"))


BARS = (
    _to("5 million", "bronze", "D", 1.1),
    _to("5 million", "bronze", "E", 0.3),
    _to("10 thousand", "seconds", "E", 0.3),
    _to("5 million", "seconds", "E", 0.35),
    _to("5 million", "seconds", "T", 0.6),
    _to("20 million", "seconds", "E", 0.35),
    _to("20 million", "seconds", "T", 0.6),
    _to("5 million", "csv", "E", 0.33),
    _ours("CSV, 5 million, to DuckDB's COPY of the same files", 1.3, "csv", "5 million", "same_files", "5 million"),
    _night("1 % spread", 0.40),
    _night("1 % newest", 0.18),
    _night("nothing changed", 0.04),
    Bar("peak memory, 20 million, MB", 3072, (SIZES["20 million"], "ours", "peak")),
    _ours("peak memory, 20 million to 5 million", 1.2, "peak", "20 million", "peak", "5 million"),
    _ours("whole run, 20 million to 5 million", 4.3, "seconds", "20 million", "seconds", "5 million"),
)


def write(results: Path, document: Path) -> None:
    """Replaces what is between the marks, and the drawing beside the document."""
    measured = read(results)
    text = document.read_text("utf-8")
    begin, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    parts = [_bars(measured)] + [_section(name, result) for name, result in measured.items()]
    document.write_text(text[:begin] + "\n\n" + "\n\n".join(parts) + "\n\n" + text[end:], "utf-8")
    draw([result for name, result in measured.items() if name.isdigit()], document.with_suffix(".svg"))


def _bars(measured: dict[str, Result]) -> str:
    table = [["", "at most", "measured", ""]]
    for bar in BARS:
        value = ratio(bar, measured)
        verdict = "not measured" if value is None else "holds" if value <= bar.most else "does not hold"
        table.append([bar.what, f"{bar.most:g}", "" if value is None else f"{value:.4g}", verdict])
    return "## Bars\n\n" + _markdown(table)


def ratio(bar: Bar, measured: dict[str, Result]) -> float | None:
    """What was measured for a bar, from medians; None if a part of it was not measured."""
    values = [
        measured[at].median(name, number) if at in measured else None
        for at, name, number in filter(None, (bar.first, bar.second))
    ]
    if None in values:
        return None
    first, second = (*values, 1.0)[:2]
    return first / second if first is not None and second else None


def _section(name: str, result: Result) -> str:
    title = "Nights at" if name.startswith("nights") else "From nothing:"
    machine = ", ".join(f"{what} {value}" for what, value in result.machine.items())
    summary = f"Rounds: {len(result.rounds)}; medians, with the least and the most. {machine}."
    parts = [f"## {title} {result.size:,} movements", summary, _markdown(lines(result))]
    parts += [_markdown(floors(result))] if floors(result)[1:] else []
    return "\n\n".join(parts + [f"Wrong: {what}." for what in wrong(result)])


def _markdown(table: list[list[str]]) -> str:
    header, *body = table
    rule = ["---", *(["---:"] * (len(header) - 1))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *body))


def _whole(result: Result) -> dict[str, float]:
    """The seconds of a whole run of each way that was right."""
    seconds = {called(way): result.median(way, "seconds") for way in result.names if way != "F"}
    return {name: value for name, value in seconds.items() if value is not None}


def draw(results: list[Result], file: Path) -> None:
    """Draws the seconds of a whole run of each way as bars, a panel for each size. The same numbers give the same
    file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"]}
    with mpl.rc_context(style):
        figure = Figure(figsize=(8, 1.7 * ((len(results) + 1) // 2) + 0.5), layout="constrained")
        figure.suptitle("Seconds of a whole run, from PostgreSQL to the CSV: shorter is faster", fontsize=11)
        panels = figure.subplots((len(results) + 1) // 2, 2, squeeze=False).flat
        for axes, result in zip(panels, results, strict=False):
            names, seconds = zip(*_whole(result).items(), strict=True)
            colours = ["#1f6feb" if name == "ours" else "#b6bcc4" for name in names]
            bars = axes.barh(names, seconds, color=colours, height=0.7)
            axes.bar_label(bars, [f"{value:.3g} s" for value in seconds], padding=4, fontsize=10)
            axes.set_title(f"{result.size:,} movements", fontsize=10, loc="left", fontweight="bold")
            axes.set(xticks=[], xlim=(0, 1.2 * max(seconds)))
            axes.invert_yaxis()
            axes.tick_params(left=False)
            axes.spines[:].set_visible(False)
        for axes in panels:  # what is left of the last row
            axes.remove()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    file.write_text(re.sub(r"[ \t]+$", "", file.read_text("utf-8"), flags=re.M), "utf-8")
