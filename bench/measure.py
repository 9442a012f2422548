"""What a command costs: seconds, CPU seconds and peak memory of its process tree, and what it reports of its steps."""

import json
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY = 0.1  # seconds between two looks at the processes
OUTPUT = "output.txt"  # of a command, in its folder


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, CPU seconds, peak resident megabytes, and the seconds of each step it reported."""

    seconds: float
    cpu: float
    peak: float
    steps: dict[str, float]


class Failed(Exception):
    """A command that did not end well; the text is the end of its output."""


def cost(command: list[str], environment: Mapping[str, str], folder: Path) -> Cost:
    """Runs a command to its end. Lines of its output that are JSON objects name steps and their seconds.

    Memory that processes share counts once for each. CPU is what the processes had used at the last look, or what the
    system reports for those that were waited for, whichever is more. Raises Failed.
    """
    log = folder / OUTPUT
    before, began = _waited_for(), time.monotonic()
    with log.open("wb") as output:
        process = psutil.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, cwd=folder)
        used: dict[tuple[int, float], float] = {}
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, _look(process, used))
                with suppress(psutil.TimeoutExpired):
                    process.wait(EVERY)
        except BaseException:
            for running in (*process.children(recursive=True), process):
                running.kill()
            raise
    seconds = time.monotonic() - began
    text = log.read_text(errors="replace")
    if process.returncode:
        raise Failed(f"{' '.join(command[:4])} …: code {process.returncode}\n{text[-2000:]}")
    steps: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            steps |= json.loads(line)
    return Cost(seconds, max(sum(used.values()), _waited_for() - before), peak / 2**20, steps)


def costs(commands: Sequence[list[str]], environment: Mapping[str, str], folder: Path) -> Cost:
    """The cost of commands run one after the other: their seconds together, their highest peak."""
    each = [cost(command, environment, folder) for command in commands]
    steps = {name: seconds for part in each for name, seconds in part.steps.items()}
    return Cost(
        sum(part.seconds for part in each),
        sum(part.cpu for part in each),
        max((part.peak for part in each), default=0),
        steps,
    )


def _waited_for() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _look(root: psutil.Process, used: dict[tuple[int, float], float]) -> int:
    """Notes the CPU seconds of each process of the tree. Returns the resident bytes of those that were there at the
    last look, too: a process that was forked just now still shows the memory of its parent as its own."""
    resident = 0
    with suppress(psutil.Error):
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                name = process.pid, process.create_time()
                resident += process.memory_info().rss if name in used else 0
                used[name] = times.user + times.system
    return resident
