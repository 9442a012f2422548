"""What a person sees: progress on standard error while a run works, the result on standard output at its end. As JSON,
the same in one object a line."""

import json
import os
import re
import sys
import threading
import time
from datetime import UTC, datetime
from typing import IO, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def log_line(message: str, level: str = "info", **known: object) -> str:
    """An event as JSON: time (UTC), level (info, warning or error), message in one line, and what else is known."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "level": level, "message": " ".join(message.split())} | known)


def unread(stream: IO[str]) -> None:
    """Discards what is written to a stream of this process: its reader has gone, and a run goes on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Screen(Console):
    """A console whose reader may go away while a run goes on."""

    def on_broken_pipe(self) -> None:
        unread(sys.stderr if self.stderr else sys.stdout)


class Report:
    """Shows progress and results, collects warnings. Readers' threads may call it. A `quiet` one only collects."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.as_json = as_json
        self._screen = Screen(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        wide = None if sys.stdout.isatty() else 200  # a file has no edge
        self._result = Screen(file=sys.stdout, highlight=False, soft_wrap=True, width=wide)
        self._status = self._screen.status("") if self._screen.is_terminal and not (quiet or as_json) else None
        self._rows: dict[str, int] = {}
        self._shown = 0.0
        self._lock = threading.Lock()
        self._warnings: list[str] = []
        self._given = 0

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        """Shows the warnings that were not shown with a result: a run that failed has them, too."""
        self.settle()
        for text in self._warnings:
            self.step(text, level="warning")

    def progress(self, layer: str, table: str, rows: int) -> None:
        """`rows` more of a table are there; at a terminal the line moves a few times a second."""
        with self._lock:
            name = f"{layer}.{table}"
            self._rows[name] = self._rows.get(name, 0) + rows
            now = time.monotonic()
            if self._status and (not rows or now - self._shown > 0.2):
                self._shown = now
                so_far = f" {self._rows[name]:,} rows" if rows else ""
                self._status.update(f"{name}{so_far} …")
                self._status.start()

    def step(self, text: str, **known: object) -> None:
        """Shows a line of progress. JSON has what is `known` beside its text; a screen marks a `level` of warning."""
        self._tell(self._screen, text, known)

    def again(self, text: str) -> None:
        """Says why the work starts over; its rows are counted from zero."""
        with self._lock:
            self._rows.clear()
        self._tell(self._screen, text, {"level": "warning"}, mark="")

    def warning(self, text: str) -> None:
        """Keeps a warning for the end, where it is read; once, however often the work starts over."""
        if text not in self._warnings[self._given :]:
            self._warnings.append(text)

    def new_warnings(self) -> tuple[str, ...]:
        """The warnings since the last call."""
        new = tuple(self._warnings[self._given :])
        self._given += len(new)
        return new

    def settle(self) -> None:
        """Ends the line that moves, before a result."""
        if self._status:
            self._status.stop()

    def show_warnings(self) -> None:
        """Shows the warnings as a part of the result, and not again at the end."""
        for text in self._warnings:
            self.say(text, level="warning")
        self._warnings.clear()
        self._given = 0

    def show(self, table: Table) -> None:
        """Shows a table of the result; as JSON, a line a row."""
        self.settle()
        if not self.as_json:
            self._result.print(table)
            return
        names = [re.sub(r"\W+", "_", str(column.header).lower()).strip("_") for column in table.columns]
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            row = dict(zip(names, cells, strict=True))
            self.say(", ".join(f"{name} {cell}" for name, cell in row.items() if cell), row=row)

    def say(self, text: str, **known: object) -> None:
        """Shows a line of the result, in the same way."""
        self._tell(self._result, text, known)

    def sample(self, row: str) -> None:
        """Shows a row of a table to a person; it goes to no log."""
        if not self.as_json:
            self.say(row)

    def _tell(self, console: Console, text: str, known: dict[str, Any], mark: str = "warning: ") -> None:
        if not self.as_json:
            console.print(escape(mark * (known.get("level") == "warning") + text))
        elif text:
            console.out(log_line(text, **known), highlight=False)


def grid(*titles: str, left: int) -> Table:
    """A table without lines: the first `left` columns are words, the others numbers."""
    table = Table(box=None, pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, justify="left" if index < left else "right", overflow="fold")
    return table
