"""The rows of delimited text files, exactly as they stand there.

A line is a row. A line that cannot be read as one becomes `Bad` with its raw text; its neighbours stay what they are.
"""

import codecs
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TextIO

from conf.contract import QUOTE, Csv

LINE_LIMIT = 16 * 2**20  # characters
COLUMN_LIMIT = 10_000
SHOWN = 1000  # characters of a line that is longer than the limit

UNDECODED = re.compile("[\udc80-\udcff]")

# A quote inside a quoted field stands twice.
QUOTED = re.compile(f"{QUOTE}([^{QUOTE}]*+(?:{QUOTE}{QUOTE}[^{QUOTE}]*+)*+){QUOTE}")


@dataclass(frozen=True)
class Row:
    """A row: the number of its line in the file, the header's being 1, and its texts; None for the dialect's null.
    `rest`: its last column took delimiters that are not quoted. `size`: the characters of its line."""

    line: int
    texts: list[str | None]
    rest: bool = False
    size: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Bad:
    """A line that is no row: its number, why, and its text; a byte that is no text stands as `\\xff`. Of a line that is
    longer than the limit it is the beginning."""

    line: int
    why: str
    raw: str


class Malformed(ValueError):
    """Why a line is no row."""


def rows(descriptor: int, dialect: Csv) -> Iterator[Row | Bad]:
    """The rows of an open file, its header the first, each of as many fields as that. Empty lines at the end are no
    rows. Raises OSError."""
    width, empty = None, list[Bad]()
    for number, line in _numbered(descriptor, dialect):
        if not line:
            empty.append(Bad(number, "it is empty", ""))
            continue
        yield from empty
        empty.clear()
        try:
            texts = fields(line, dialect, width)
        except Malformed as why:
            yield Bad(number, str(why), _shown(line, dialect))
        else:
            width = width or len(texts)
            yield Row(number, texts, _has_rest(line, texts, dialect), len(line))


def unread(descriptor: int, dialect: Csv, why: str) -> Iterator[Bad]:
    """Every line of a file of which no row can be read, its header, too. Raises OSError."""
    return (Bad(number, why, _shown(line, dialect)) for number, line in _numbered(descriptor, dialect) if line)


def _numbered(descriptor: int, dialect: Csv) -> Iterator[tuple[int, str]]:
    """The lines of a file from its beginning; one that is longer than the limit is cut behind it."""
    encoding = "utf-8-sig" if codecs.lookup(dialect.encoding).name == "utf-8" else dialect.encoding
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, encoding=encoding, errors="surrogateescape", newline=dialect.line_end, closefd=False) as text:
        for number, line in enumerate(iter(partial(text.readline, LINE_LIMIT + 2), ""), 1):
            yield number, line.removesuffix(dialect.line_end)
            if len(line) > LINE_LIMIT:
                _skip_rest(text, line, dialect.line_end)


def _skip_rest(text: TextIO, cut: str, end: str) -> None:
    """Goes on to the next line, without keeping more than a part of this one, of which `cut` was read."""
    while not cut.endswith(end):
        # The line's end may be cut in two.
        more = text.read(1) if end.startswith(cut[-1]) else text.readline(LINE_LIMIT)
        cut = cut[-1] + more if more else end


def _has_rest(line: str, texts: list[str | None], dialect: Csv) -> bool:
    if not dialect.rest or dialect.delimiter not in (texts[-1] or ""):
        return False
    try:
        return len(fields(line, replace(dialect, rest=False))) > len(texts)
    except Malformed:
        return True


def fields(line: str, dialect: Csv, width: int | None = None) -> list[str | None]:
    """The fields of a row; None for the dialect's null, unquoted. Raises Malformed."""
    if len(line) > LINE_LIMIT:
        raise Malformed(f"it has more than {LINE_LIMIT:,} characters")
    if UNDECODED.search(line):
        raise Malformed(f"it has bytes that are no {dialect.encoding}")
    if QUOTE not in line:
        parts = line.split(dialect.delimiter, width - 1 if dialect.rest and width else -1)
        texts: list[str | None] = [None if part == dialect.null else part for part in parts]
    else:
        texts = list(_quoted_fields(line, dialect, width))
    if width is not None and len(texts) != width:
        raise Malformed(f"it has {len(texts)} fields, not {width}")
    return texts


def _quoted_fields(line: str, dialect: Csv, width: int | None) -> Iterator[str | None]:
    at, number = 0, 0
    while True:
        number += 1
        if line.startswith(QUOTE, at):
            match = QUOTED.match(line, at)
            if not match:
                raise Malformed("a quoted field does not end")
            yield match[1].replace(QUOTE * 2, QUOTE)
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


def _shown(line: str, dialect: Csv) -> str:
    line = line if len(line) <= LINE_LIMIT else line[:SHOWN]
    return line.encode(dialect.encoding, "surrogateescape").decode(dialect.encoding, "backslashreplace")
