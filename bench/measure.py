"""What a command costs: seconds, CPU seconds and peak memory of its process tree, and what it says of its steps."""

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
SAID = "said.txt"  # what a command said lies in its folder


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

    Memory that processes share counts once for each. CPU is what the processes had used at their last look, or what the
    system says of those that were waited for, whichever is more. Raises Failed.
    """
    said = folder / SAID
    before, began = _waited_for(), time.monotonic()
    with said.open("wb") as output:
        process = psutil.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, cwd=folder)
        used: dict[tuple[int, float], float] = {}
        peak = 0
        try:
            while process.poll() is None:
                peak = max(peak, _look(process, used))
                with suppress(psutil.TimeoutExpired):
                    process.wait(EVERY)
        except BaseException:
            for one in (*process.children(recursive=True), process):
                one.kill()
            raise
    seconds = time.monotonic() - began
    text = said.read_text(errors="replace")
    if process.returncode:
        raise Failed(f"{' '.join(command[:4])} …: code {process.returncode}\n{text[-2000:]}")
    steps: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            steps |= json.loads(line)
    return Cost(seconds, max(sum(used.values()), _waited_for() - before), peak / 2**20, steps)


def costs(commands: Sequence[list[str]], environment: Mapping[str, str], folder: Path) -> Cost:
    """The same of commands one after the other: their seconds together, their highest peak."""
    each = [cost(command, environment, folder) for command in commands]
    steps = {name: seconds for one in each for name, seconds in one.steps.items()}
    return Cost(
        sum(one.seconds for one in each),
        sum(one.cpu for one in each),
        max((one.peak for one in each), default=0),
        steps,
    )


def _waited_for() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _look(root: psutil.Process, used: dict[tuple[int, float], float]) -> int:
    """Notes the CPU seconds of each process of the tree; the resident bytes of those that were there at the last look,
    too: one that was forked just now still shows the memory of its parent as its own."""
    resident = 0
    with suppress(psutil.Error):
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                name = process.pid, process.create_time()
                resident += process.memory_info().rss if name in used else 0
                used[name] = times.user + times.system
    return resident
