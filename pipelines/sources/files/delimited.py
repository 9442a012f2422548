"""The rows of delimited text files, exactly as they stand there.

A line is a row, unless the dialect lets a quoted field go on in the next line. What cannot be read as a row becomes
`Bad` with its raw line; its neighbours stay what they are.
"""

import codecs
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from conf.contract import Csv

LONGEST = 1000  # lines that a row may have


UNDECODED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class Row:
    """A row: the number of its first line in the file, the header's being 1, and its texts; None where it says null.
    `rest`: its last column took delimiters that are not quoted."""

    line: int
    texts: list[str | None]
    rest: bool = False


@dataclass(frozen=True)
class Bad:
    """A line that is no row: its number, why, and its text; a byte that is no text stands as `\\xff`."""

    line: int
    why: str
    raw: str


class Malformed(ValueError):
    """A line that is no row; the text says why."""


class Unclosed(Malformed):
    """A quoted field that does not end."""


def rows(file: Path, dialect: Csv) -> Iterator[Row | Bad]:
    """The rows of a file, its header the first, each of as many fields as that. Raises OSError.

    Empty lines at the end are no rows.
    """
    width = None
    lines = _Lines(_numbered(file, dialect))
    empty: list[Bad] = []
    while first := lines.next():
        number, line = first
        if not line:
            empty.append(Bad(number, "it is empty", ""))
            continue
        yield from empty
        empty.clear()
        row = _row(number, line, lines, dialect, width)
        if width is None and isinstance(row, Row):
            width = len(row.texts)
        yield row


def unread(file: Path, dialect: Csv, why: str) -> Iterator[Bad]:
    """Every line of a file of which no row can be read, its header, too. Raises OSError."""
    return (Bad(number, why, _shown(line, dialect)) for number, line in _numbered(file, dialect) if line)


def _numbered(file: Path, dialect: Csv) -> Iterator[tuple[int, str]]:
    encoding = "utf-8-sig" if codecs.lookup(dialect.encoding).name == "utf-8" else dialect.encoding
    with file.open(encoding=encoding, errors="surrogateescape", newline=dialect.line_end) as text:
        yield from enumerate((line.removesuffix(dialect.line_end) for line in text), 1)


class _Lines:
    """Numbered lines, of which some can be given back."""

    def __init__(self, source: Iterator[tuple[int, str]]) -> None:
        self._source, self._back = source, deque[tuple[int, str]]()

    def next(self) -> tuple[int, str] | None:
        return self._back.popleft() if self._back else next(self._source, None)

    def give_back(self, lines: list[tuple[int, str]]) -> None:
        self._back.extendleft(reversed(lines))


def _row(number: int, line: str, lines: _Lines, dialect: Csv, width: int | None) -> Row | Bad:
    """The row that begins with a line, and takes as many more as it needs, where the dialect lets it."""
    later: list[tuple[int, str]] = []
    while True:
        try:
            whole = dialect.line_end.join([line, *(more for _, more in later)])
            texts = fields(whole, dialect, width)
            return Row(number, texts, _has_rest(whole, texts, dialect))
        except Unclosed as why:
            closed = False  # by the next line that has an odd number of quotes
            while dialect.multiline and not closed and len(later) < LONGEST and (more := lines.next()):
                later.append(more)
                closed = more[1].count(dialect.quote) % 2 == 1
            if not closed:
                lines.give_back(later)
                return Bad(number, str(why), _shown(line, dialect))
        except Malformed as why:
            lines.give_back(later)
            return Bad(number, str(why), _shown(line, dialect))


def _has_rest(line: str, texts: list[str | None], dialect: Csv) -> bool:
    """Whether the last field took delimiters that are not quoted."""
    if not dialect.rest or dialect.delimiter not in (texts[-1] or ""):
        return False
    try:
        return len(fields(line, replace(dialect, rest=False))) > len(texts)
    except Malformed:
        return True


def fields(line: str, dialect: Csv, width: int | None = None) -> list[str | None]:
    """The fields of a row; None where one is the dialect's null, unquoted. Raises Malformed."""
    if UNDECODED.search(line):
        raise Malformed(f"it has bytes that are no {dialect.encoding}")
    if dialect.quote not in line:
        texts = line.split(dialect.delimiter, width - 1 if dialect.rest and width else -1)
        found: list[str | None] = [None if text == dialect.null else text for text in texts]
    else:
        found = list(_quoted_fields(line, dialect, width))
    if width is not None and len(found) != width:
        raise Malformed(f"it has {len(found)} fields, not {width}")
    return found


def _quoted_fields(line: str, dialect: Csv, width: int | None) -> Iterator[str | None]:
    """The fields of a row, of which some are quoted."""
    quoted, at, number = _quoted(dialect.quote), 0, 0
    while True:
        number += 1
        if line.startswith(dialect.quote, at):
            match = quoted.match(line, at)
            if not match:
                raise Unclosed("a quoted field does not end")
            yield match[1].replace(dialect.quote * 2, dialect.quote)
            end = match.end()
            if end < len(line) and not line.startswith(dialect.delimiter, end):
                raise Malformed("there is text behind a quoted field")
        else:
            end = -1 if dialect.rest and number == width else line.find(dialect.delimiter, at)
            end = len(line) if end < 0 else end
            yield None if (text := line[at:end]) == dialect.null else text
        if end == len(line):
            return
        at = end + len(dialect.delimiter)


@cache
def _quoted(quote: str) -> re.Pattern[str]:
    """A quoted field; a quote inside it stands twice."""
    one = re.escape(quote)
    return re.compile(f"{one}([^{one}]*+(?:{one}{one}[^{one}]*+)*+){one}")


def _shown(line: str, dialect: Csv) -> str:
    return line.encode(dialect.encoding, "surrogateescape").decode(dialect.encoding, "backslashreplace")
