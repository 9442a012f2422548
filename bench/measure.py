"""What a command costs: seconds, CPU seconds and peak memory of its whole process tree, and what it says of its steps."""

import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY = 0.1  # seconds between two looks at the processes


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, CPU seconds, peak resident megabytes, and the seconds of each step it reported."""

    seconds: float
    cpu: float
    peak: float
    steps: dict[str, float]


class Failed(Exception):
    """A command that did not end well; the text is the end of what it said."""


def cost(command: list[str], environment: Mapping[str, str], folder: Path) -> Cost:
    """Runs a command to its end. Lines of its output that are JSON objects name steps and their seconds.

    Memory that processes share counts once for each. CPU of a process is what it had used at the last look. Raises Failed.
    """
    said = folder / "said.txt"
    began = time.monotonic()
    with said.open("wb") as output:
        process = psutil.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, cwd=folder)
        used: dict[tuple[int, float], float] = {}
        peak = 0
        while process.poll() is None:
            peak = max(peak, _look(process, used))
            with suppress(psutil.TimeoutExpired):
                process.wait(EVERY)
    seconds = time.monotonic() - began
    text = said.read_text(errors="replace")
    if process.returncode:
        raise Failed(f"{' '.join(command[:4])} …: code {process.returncode}\n{text[-2000:]}")
    steps: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            steps |= json.loads(line)
    return Cost(seconds, sum(used.values()), peak / 2**20, steps)


def _look(root: psutil.Process, used: dict[tuple[int, float], float]) -> int:
    """Notes the CPU seconds of each process of the tree; the tree's resident bytes."""
    resident = 0
    with suppress(psutil.Error):
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                used[process.pid, process.create_time()] = times.user + times.system
                resident += process.memory_info().rss
    return resident
