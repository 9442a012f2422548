"""Rounds: each way in turn on an empty lake, in processes of its own, measured and checked."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import check, rivals
from bench.measure import OUTPUT, Cost, Failed, costs
from bench.rivals import Way
from bench.source import Source

Numbers = dict[str, float | list[str]]  # of a run: seconds in all and of steps, CPU, memory, bytes; or what is wrong
WORK = ("bronze", "silver", "gold_csv")


def rounds(source: Source, ways: Sequence[Way], count: int, folder: Path) -> list[dict[str, Numbers]]:
    """The numbers of each way, for each round. Each round begins with another way."""
    contents = check.expected(source, folder)
    results = []
    for number in range(count):
        turn = number % len(ways)
        numbers = {}
        for way in (*ways[turn:], *ways[:turn]):
            with empty_lake(folder) as lake:
                numbers[way.letter] = filled(way, source, lake, folder, contents)
            show_progress(f"{source.rows:,}, round {number + 1}", way.letter, numbers[way.letter])
        results.append({way.letter: numbers[way.letter] for way in ways})
    return results


def filled(
    way: Way, source: Source, lake: Path, folder: Path, contents: Mapping[str, check.Content], beside: bool = True
) -> Numbers:
    """Fills a lake, empty or not. Returns its numbers, or what is wrong."""
    environment = rivals.environment(source, lake, folder)
    try:
        cost = costs(way.commands, environment, lake)
        files = [file for file in lake.rglob("*") if file.is_file() and file.name != OUTPUT]
        sizes: dict[str, float] = {"bytes": sum(file.stat().st_size for file in files), "files": len(files)}
        more = costs(way.beside, environment, lake).steps if beside else {}
    except Failed as failed:
        print(failed, file=sys.stderr)
        return {"wrong": ["it failed"]}
    if columns := check.wrong(way, lake, contents):
        return {"wrong": [*columns]}
    return _numbers(cost, sizes | more)


def _numbers(cost: Cost, more: dict[str, float]) -> Numbers:
    """`work` is what the steps take without start-up; gold and its CSV are a single step, as in our way."""
    steps = dict(cost.steps)
    if "gold" in steps:
        steps["gold_csv"] = steps["gold"] + steps["csv"]
    work = {"work": sum(steps[name] for name in WORK)} if all(name in steps for name in WORK) else {}
    numbers = {"seconds": cost.seconds, "cpu": cost.cpu, "peak": cost.peak} | work | steps | more
    return {name: round(value, 3) for name, value in numbers.items()}


@contextmanager
def empty_lake(folder: Path) -> Iterator[Path]:
    """A folder for a lake; it is removed afterwards."""
    lake = folder / "lakes" / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    lake.mkdir(parents=True)
    try:
        yield lake
    finally:
        shutil.rmtree(lake, ignore_errors=True)


def show_progress(when: str, what: str, numbers: Numbers) -> None:
    wrong = numbers.get("wrong")
    text = f"WRONG: {', '.join(wrong)}" if isinstance(wrong, list) else f"{numbers['seconds']:.1f} s"
    print(f"{when}  {what:16}  {text}", file=sys.stderr, flush=True)
