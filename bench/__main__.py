"""`python -m bench`: measures the ways and leaves the numbers in bench/results. `python -m bench report`: writes them
into docs/performance.md."""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console

from bench import rivals, tables
from bench.nights import nights
from bench.rivals import Way
from bench.rounds import rounds
from bench.source import first_row, home, running, source
from conf.settings import PROJECT, Postgres
from pipelines.core.errors import Fault

RESULTS, DOCUMENT = Path(__file__).with_name("results"), PROJECT / "docs" / "performance.md"


def main(
    words: list[str], folder: Path | None = None, results: Path = RESULTS, ways: Sequence[Way] | None = None
) -> int:
    """Returns the exit code: 1 if a way was wrong. `folder` holds server and lakes; the default is all ways."""
    arguments = _parse(words)
    if arguments.what == "report":
        from bench.report import write

        write(results, DOCUMENT)
        return 0
    folder = folder or home()
    named = {way.letter: way for way in ways or rivals.ways(folder)}
    if unknown := set(arguments.ways) - set(named):
        print(f"--ways: there is no {', '.join(sorted(unknown))}; there are {', '.join(named)}", file=sys.stderr)
        return 2
    chosen = [named[letter] for letter in arguments.ways]
    right = True
    with running(folder) as server:
        if {"E", "T"} & set(arguments.ways):
            rivals.fetch(folder)
        for size in arguments.sizes:
            numbers = rounds(source(server, size), chosen, arguments.rounds, folder)
            right &= _keep(results / f"{size}.json", tables.Result(size, machine(server), numbers))
        for size in arguments.nights:
            numbers = nights(source(server, size), named["ours"], arguments.rounds, folder)
            right &= _keep(results / f"nights-{size}.json", tables.Result(size, machine(server), numbers))
    return 0 if right else 1


def _keep(file: Path, result: tables.Result) -> bool:
    """Writes and shows a result. Returns whether all of it was right."""
    file.parent.mkdir(exist_ok=True)
    shown = {"size": result.size, "machine": result.machine, "rounds": result.rounds}
    file.write_text(re.sub(r"\n {8,}|\n {6}(?=[}\]])", " ", json.dumps(shown, indent=2)) + "\n", "utf-8")
    Console().print(tables.shown(result))
    return not tables.wrong(result)


def _parse(words: list[str]) -> argparse.Namespace:
    def sizes(text: str) -> list[int]:
        return [int(size) for size in text.split(",") if size]

    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("run", "report"), default="run")
    parser.add_argument("--sizes", type=sizes, default="10000,1000000,5000000", help="movements, with commas")
    parser.add_argument("--nights", type=sizes, default="", help="sizes whose nights are measured, ours only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", type=lambda text: text.split(","), default="ours,E,T,D,F")
    return parser.parse_args(words)


def machine(server: Postgres) -> dict[str, str]:
    """What the numbers depend on, without the machine's name."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr  # noqa: S607
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "CPU": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        "system": f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "Java": java.split('"')[1] if '"' in java else "?",
        "PostgreSQL": first_row(server, "SHOW server_version")[0],
        "Spark": version("pyspark"),
        "DuckDB": version("duckdb"),
        "delta-rs": version("deltalake"),
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that server and ways end, too
    try:
        sys.exit(main(sys.argv[1:]))
    except Fault as fault:
        print(fault, file=sys.stderr)
        sys.exit(fault.code)
