"""What a person sees: progress on standard error while a run works, the result on standard output at its end. As JSON,
the same in one object a line."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pipelines.core.errors import StorageFault
from pipelines.core.grid import Grid, wrapped
from pipelines.core.texts import visible

REFRESHES = 8  # in a second, of the lines that move
PASSING_LINES = 12
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
STYLES = {"warning": "yellow", "error": "red"}


def log_line(message: str, level: str = "info", **known: object) -> str:
    """An event as JSON: time (UTC), level (info, warning or error), message, and what else is known."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "level": level, "message": message} | known)


def unread(stream: IO[str]) -> None:
    """Discards what is written to a stream of this process: its reader has gone, and a run goes on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Screen(Console):
    """A console whose reader may go away while a run goes on. So may the disk of its log; a result needs its disk."""

    def _write_buffer(self) -> None:
        try:
            super()._write_buffer()
        except OSError as error:
            unread(sys.stderr if self.stderr else sys.stdout)
            if not (self.stderr or isinstance(error, BrokenPipeError)):
                raise StorageFault(f"the result cannot be written: {error.strerror}") from error


def _width(console: Console) -> int | None:
    """The width of a screen; None for a file, which has no edge."""
    return console.width if console.is_terminal else None


@contextmanager
def starting(as_json: bool) -> Iterator[None]:
    """While imports take their time, a terminal shows that something happens; a log has nothing of it."""
    screen = Screen(stderr=True)
    if as_json or not screen.is_terminal:
        yield
        return
    with Live(Text("starting …"), console=screen, transient=True, auto_refresh=False):
        yield


@dataclass
class Progress:
    """What is being done: since when, the rows so far."""

    started: float
    rows: int = 0

    def text(self, name: str, total: int) -> str:
        rows = f"{self.rows or total:,} rows" if self.rows or total else ""
        if 0 < self.rows <= total:
            rows = f"{self.rows:,} of {total:,} rows ({self.rows / total:.0%})"
        return ", ".join(filter(None, (name, rows, f"{time.monotonic() - self.started:.0f} s")))


class Report(AbstractContextManager["Report"]):
    """Shows progress and results, collects warnings. Readers' threads may call it. A `quiet` one only collects."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.as_json = as_json
        self._screen = Screen(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self._result = Screen(file=sys.stdout, highlight=False, soft_wrap=True)
        self._work: dict[str, Progress] = {}
        self._totals: dict[str, int] = {}
        self._passing: list[str] = []
        self.waited = 0.0  # seconds spent in `waiting`
        self._lock = threading.Lock()
        self._warnings: list[str] = []
        self._given = 0
        self._live: Live | None = None
        if self._screen.is_terminal and not (quiet or as_json):
            self._live = Live(
                get_renderable=self._now, console=self._screen, transient=True, refresh_per_second=REFRESHES
            )

    def __exit__(self, *_: object) -> None:
        """Shows what was not shown with a result, of a run that failed: the tables that were built, the warnings."""
        passing = self._passing
        self.settle()
        for text in passing:
            self.step(text)
        for text in self._warnings:
            self.step(text, level="warning")

    def clock(self) -> float:
        """Seconds as `time.monotonic` counts them, without those `waited`."""
        return time.monotonic() - self.waited

    @contextmanager
    def waiting(self, layer: str, table: str) -> Iterator[None]:
        """Shows what the work waits for. Only one thread may wait."""
        started = time.monotonic()
        self.progress(layer, table)
        try:
            yield
        finally:
            self.finished(layer, table)
            self.waited += time.monotonic() - started

    def expect(self, layer: str, table: str, rows: int) -> None:
        """How many rows of a table there will be in all."""
        with self._lock:
            self._totals[f"{layer}.{table}"] = rows

    def progress(self, layer: str, table: str, rows: int = 0) -> None:
        """A table is being worked on, `rows` more of it are there; a terminal shows what began last."""
        with self._lock:
            self._work.setdefault(f"{layer}.{table}", Progress(time.monotonic())).rows += rows
        if self._live and not self._live.is_started:
            self._live.start()

    def finished(self, layer: str, table: str) -> None:
        """A table is not worked on any more."""
        with self._lock:
            self._work.pop(f"{layer}.{table}", None)

    def _now(self) -> Text:
        """The lines that move: what is complete, then what is being done."""
        with self._lock:
            name, work = next(reversed(self._work.items()), ("", Progress(time.monotonic())))
            frame = FRAMES[int(time.monotonic() * REFRESHES) % len(FRAMES)]
            now = f"{frame} {work.text(name, self._totals.get(name, 0))}" if name else frame
            return Text("\n".join([*self._passing[-PASSING_LINES:], now]), no_wrap=True, overflow="ellipsis")

    def step(self, text: str, **known: object) -> None:
        """Shows a line of progress. JSON has what is `known` beside its text; a screen marks a `level` of warning."""
        self._tell(self._screen, text, known=known)

    def passing(self, text: str, **known: object) -> None:
        """The same for what the result will say again: a terminal that will show that, too, keeps it until then."""
        if self._live and self._result.is_terminal:
            with self._lock:
                self._passing.append(visible(text))
        else:
            self.step(text, **known)

    def again(self, text: str) -> None:
        """Says why the work starts over; its rows are counted from zero."""
        with self._lock:
            self._work.clear()
        self._tell(self._screen, text, known={"level": "warning"}, mark="")

    def warning(self, text: str) -> None:
        """Keeps a warning for the end, where it is read; once, however often the work starts over."""
        if (shown := visible(text)) not in self._warnings[self._given :]:
            self._warnings.append(shown)

    def new_warnings(self) -> tuple[str, ...]:
        """The warnings since the last call."""
        new = tuple(self._warnings[self._given :])
        self._given += len(new)
        return new

    def settle(self) -> None:
        """Ends the lines that move, before a result."""
        self._passing = []
        if self._live:
            self._live.stop()

    def show_warnings(self) -> None:
        """Shows the warnings as a part of the result, and not again at the end."""
        for text in self._warnings:
            self.say(text, level="warning")
        self._warnings.clear()
        self._given = 0

    def show(self, table: Grid) -> None:
        """Shows a table of the result; as JSON, a line a row."""
        self.settle()
        if not self.as_json:
            for line in table.lines(_width(self._result)):
                self._result.print(line)
            return
        for cells in table.rows:
            row = {re.sub(r"\W+", "_", title.lower()).strip("_"): cell.plain for title, cell in cells.items()}
            self.say(", ".join(f"{name} {cell}" for name, cell in row.items() if cell), row=row)

    def say(self, *lines: str, **known: object) -> None:
        """Shows lines of the result, in the same way; JSON has one object for them."""
        self._tell(self._result, *lines, known=known)

    def command(self, line: str) -> None:
        """Shows a line to be typed; a narrow screen does not break it."""
        if self.as_json:
            self.say(line)
        else:
            self._result.print(Text(visible(line)))

    def _tell(self, console: Console, *lines: str, known: dict[str, Any], mark: str = "warning: ") -> None:
        """Writes lines in the colour of their level; a terminal breaks them between words."""
        level, shown = str(known.get("level")), [visible(line) for line in lines]
        if self.as_json:
            if text := " ".join(filter(None, shown)):
                console.out(log_line(text, **known), highlight=False)
            return
        for line in shown:
            for part in wrapped(mark * (level == "warning") + line, _width(console)):
                console.print(Text(part, STYLES.get(level, "")))
