"""What a person sees: progress on standard error while a run works, the result on standard output at its end. Or the
same as JSON, a line each."""

import re
import sys
import threading
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.lake import EMBEDDED
from pipelines.log import log_line, unread
from pipelines.records import Run, TableRun


class Screen(Console):
    """Where nobody reads on, a run goes on."""

    def on_broken_pipe(self) -> None:
        unread(sys.stderr if self.stderr else sys.stdout)


class Report:
    """Collects what to tell. Safe to call from the readers' threads. A `quiet` one only collects."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self._as_json = as_json
        self._screen = Screen(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        wide = None if sys.stdout.isatty() else 200  # a file has no edge
        self._result = Screen(file=sys.stdout, highlight=False, soft_wrap=True, width=wide)
        self._status = self._screen.status("") if self._screen.is_terminal and not (quiet or as_json) else None
        self._rows: dict[str, int] = {}
        self._shown = 0.0
        self._lock = threading.Lock()
        self._warnings: list[str] = []
        self._taken = 0

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        """What was not shown with a result is shown now: a run that failed has its warnings, too."""
        if self._status:
            self._status.stop()
        for text in self._warnings:
            self.step(f"warning: {text}")

    def progress(self, layer: str, table: str, rows: int) -> None:
        """`rows` more of a table are done; at a terminal the line moves a few times a second."""
        with self._lock:
            name = f"{layer}.{table}"
            self._rows[name] = self._rows.get(name, 0) + rows
            now = time.monotonic()
            if self._status and (not rows or now - self._shown > 0.2):
                self._shown = now
                done = f" {self._rows[name]:,} rows" if rows else ""
                self._status.update(f"{name}{done} …")
                self._status.start()

    def step(self, text: str, **known: object) -> None:
        """One line of progress, and what JSON has beside its text."""
        self._tell(self._screen, text, known)

    def again(self, text: str) -> None:
        """Why the work begins anew; its rows are counted anew."""
        with self._lock:
            self._rows.clear()
        self.step(text, level="warning")

    def table(self, layer: str, domain: str, done: TableRun) -> None:
        if not done.is_beside:
            self.step(_line(layer, done), **_numbers(layer, domain, done))

    def warning(self, text: str) -> None:
        """Kept for the end, where it is read; once, however often the work began anew."""
        if text not in self._warnings[self._taken :]:
            self._warnings.append(text)

    def new_warnings(self) -> tuple[str, ...]:
        """The warnings since this was asked last."""
        new = tuple(self._warnings[self._taken :])
        self._taken += len(new)
        return new

    def summary(self, runs: list[tuple[str, Run]]) -> None:
        """The table of a whole run, then the warnings."""
        if self._status:
            self._status.stop()
        table = grid("layer", "table", "rows in", "rows out", "set aside", "seconds", "how", left=2)
        table.columns[-1].justify = "left"
        for layer, run in runs:
            for done in run.tables:
                if not done.is_beside:
                    numbers = (f"{done.rows_in:,}", f"{done.rows_out:,}", f"{done.set_aside:,}", f"{done.seconds:.1f}")
                    table.add_row(layer, done.name, *numbers, done.how)
                    if self._as_json:
                        known = _numbers(layer, run.domain, done)
                        self.say(_line(layer, done), run=f"{layer}/{run.run}", **known)
        if not self._as_json:
            self.say("")
            self.show(table)
        for source in dict.fromkeys(run.source for _, run in runs):
            self.say(f"source: {source}{' (fake data)' if source == EMBEDDED else ''}")
        for text in self._warnings:
            self.say(f"warning: {text}")
        self._warnings.clear()
        self._taken = 0

    def show(self, table: Table) -> None:
        """A table of the result; as JSON, a line each row."""
        if self._status:
            self._status.stop()
        if not self._as_json:
            self._result.print(table)
            return
        names = [re.sub(r"\W+", "_", str(column.header).lower()).strip("_") for column in table.columns]
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            row = dict(zip(names, cells, strict=True))
            self.say(", ".join(f"{name} {cell}" for name, cell in row.items() if cell), row=row)

    def say(self, text: str, **known: object) -> None:
        """A line of the result, and what JSON has beside its text."""
        self._tell(self._result, text, known)

    def sample(self, row: str) -> None:
        """A row of a table, for a person to look at: it goes to no log."""
        if not self._as_json:
            self.say(row)

    def _tell(self, console: Console, text: str, known: dict[str, Any]) -> None:
        if not self._as_json:
            console.print(escape(text))
        elif text:
            console.out(log_line(text, **known), highlight=False)


def _line(layer: str, done: TableRun) -> str:
    aside = f", {done.set_aside:,} set aside" if done.set_aside else ""
    return f"{layer}.{done.name}: {done.rows_out:,} rows{aside}, {done.how}, {done.seconds:.1f} s"


def _numbers(layer: str, domain: str, done: TableRun) -> dict[str, Any]:
    """What a JSON line has of a table."""
    named = {"layer": layer, "domain": domain, "table": done.name, "how": done.how, "seconds": round(done.seconds, 3)}
    return named | {"rows_in": done.rows_in, "rows_out": done.rows_out, "set_aside": done.set_aside}


def grid(*titles: str, left: int) -> Table:
    """A table without lines: the first `left` columns words, the others numbers."""
    table = Table(box=None, pad_edge=False)
    for index, title in enumerate(titles):
        table.add_column(title, justify="left" if index < left else "right", overflow="fold")
    return table
