"""A terminal's screen as a picture for the documents: SVG that fetches nothing."""

import fcntl
import html
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, LINES = 80, 24

# What differs from run to run: the seconds of a table, or of Spark's start.
SECONDS = re.compile(r"[ \d]{4}\d\.\d(?=  \w|$)", re.M)


def run_at_terminal(
    command: tuple[str, ...], folder: Path, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Runs a command whose standard output is a terminal; its standard error is not."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    written: list[bytes] = []
    thread = threading.Thread(target=lambda: written.extend(_read(reader)))
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    thread.start()
    _, errors = process.communicate(timeout=400)
    thread.join()
    os.close(reader)
    screen = b"".join(written).decode().replace("\r\n", "\n")
    return subprocess.CompletedProcess(command, process.returncode, screen, errors)


def _read(reader: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(reader, 2**16)
        except OSError:  # the last program that had the terminal has ended
            return
        if not chunk:
            return
        yield chunk


def picture(command: str, screen: str) -> str:
    """What a terminal shows after a command, as SVG. Letters are those of the reader: rich would fetch some."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "dim"), (command, "bold")), Text.from_ansi(screen.rstrip("\n")), sep="\n")
    drawing = console.export_svg(title=command, unique_id="screen")
    drawing = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", drawing, flags=re.S)
    drawing = drawing.replace("Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace")
    return re.sub(r"[ \t]+$", "", drawing, flags=re.M)


def text_of(drawing: str) -> str:
    """The lines that a picture shows."""
    lines: dict[str, str] = {}
    for at, text in re.findall(r'<text class="screen-r.*? y="([\d.]+)".*?>(.*?)</text>', drawing):
        lines[at] = lines.get(at, "") + html.unescape(text).replace("\xa0", " ")
    return "\n".join(lines.values())


def as_measured_in(screen: str, drawing: str) -> str:
    """A screen with the seconds that a picture of an earlier run shows."""
    earlier = iter(SECONDS.findall(text_of(drawing)))
    return SECONDS.sub(lambda _: next(earlier, "   ?.?"), screen)
