"""The rows of delimited text files, exactly as they stand there.

A line is a row. A line that cannot be read as one becomes `Bad` with its raw text; its neighbours stay what they are.
"""

import codecs
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TextIO

from conf.contract import QUOTE, Csv

LINE_LIMIT = 16 * 2**20  # characters
COLUMN_LIMIT = 10_000
SHOWN = 1000  # characters of a line that is longer than the limit

LINE_ENDS = "its lines end with"
LINE_END = re.compile(r"(\r{0,2}\n|\r)")
NAMED = {"\n": "LF", "\r": "CR", "\r\n": "CR LF", "\r\r\n": "CR CR LF"}
BYTE_ORDER_MARK = "\ufeff"

UNDECODED = re.compile("[\ud800-\udfff]")
ESCAPED = {code: f"\\x{code & 0xFF:02x}" for code in range(0xD800, 0xE000)}
# And what UTF-16 makes of a line feed or a byte order mark behind a missing byte, or in the other order of bytes.
SHIFTED = re.compile("[\ud800-\udfff\u0a00\ufffe]")

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


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no text become one surrogate each, as by Python's `surrogateescape`, but in any encoding."""
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("keep_bytes", _keep_bytes)


def rows(descriptor: int, dialect: Csv, last: str = "") -> Iterator[Row | Bad]:
    """The rows of an open file, its header the first, each of as many fields as that. Empty lines at the end are no
    rows; nor is the header again, nor another one, nor what stands behind that.
    `last`: the column that takes the rest of its line, if it is the last of the header, too. Raises OSError."""
    first, names, folded, known, begin, end = "", list[str](), list[str](), set[str](), 0, 0
    width, takes_rest, other, empty = 0, False, 0, 0
    for number, line in _numbered(descriptor, dialect, dialect.line_end):
        if not line:
            empty += 1
            continue
        if empty:
            yield from (Bad(behind, "it is empty", "") for behind in range(number - empty, number))
            empty = 0
        why = ""
        try:
            texts, rest = fields(line, dialect, width, takes_rest)
        except Malformed as malformed:
            why, texts, rest = str(malformed), [], False
        unclear = why or rest or line != line.strip("\r\n") or (width == 1 and not line.isprintable())
        # Another header has one of the names in the first or in the last column that has one.
        likely = unclear or other or (texts[begin] or "").casefold() in known
        if width and (likely or (texts[end] or "").casefold() in known):
            here = _names(line, dialect)
            lower = [name.casefold() for name in here]
            if lower == folded and (width > 1 or line.lstrip(BYTE_ORDER_MARK) == first):
                why, other = "it is the header again", 0
            elif len(known.intersection(lower)) > len(known) / 4 and _is_another(here, names):
                why, other = "it is another header", number
            elif other:
                why = f"it stands behind another header, in line {other}"
            elif unclear:
                why = _line_ends(line, dialect) or why
        elif not width and not why:
            first, names, width = line, _names(line, dialect), len(texts)
            folded = [name.casefold() for name in names]
            takes_rest = dialect.rest and last in ("", texts[-1])
            begin, *_, end = [place for place, text in enumerate(texts) if text] * 2 or [0, 0]
            known = {name.strip().casefold() for name in (*names, *texts[:COLUMN_LIMIT]) if name}
        yield Bad(number, why, _shown(line)) if why else Row(number, texts, rest, len(line))


def unread(descriptor: int, dialect: Csv, why: str) -> Iterator[Bad]:
    """Every line of a file of which no row can be read, its header, too, with the line ends that it has. Raises
    OSError."""
    _, first = next(_numbered(descriptor, dialect, dialect.line_end), (0, ""))
    for number, line in _numbered(descriptor, dialect, "" if _line_ends(first, dialect) else dialect.line_end):
        if line:
            yield Bad(number, why, _shown(line))


def _numbered(descriptor: int, dialect: Csv, line_end: str) -> Iterator[tuple[int, str]]:
    """The lines of a file from its beginning; one that is longer than the limit is cut behind it. `line_end`: empty for
    any. A byte order mark at the beginning is skipped."""
    encoding = codecs.lookup(dialect.encoding).name
    if encoding in ("utf-16", "utf-32"):  # by its byte order mark; without one, its first character is of ASCII
        encoding += "-be" if os.pread(descriptor, 1, 0) in (b"\0", b"\xfe") else "-le"
    # Python's own way is much faster, but needs that no byte below 0x80 is undecodable.
    errors = "surrogateescape" if encoding.startswith(("utf-8", "ascii", "iso8859-", "cp125")) else "keep_bytes"
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, encoding=encoding, errors=errors, newline=line_end, closefd=False) as text:
        first = text.readline(LINE_LIMIT + 2).lstrip(BYTE_ORDER_MARK)
        for number, line in enumerate(chain([first], iter(partial(text.readline, LINE_LIMIT + 2), "")), 1):
            yield number, line.removesuffix(line_end) if line_end else line.rstrip("\r\n")
            if len(line) > LINE_LIMIT:
                _skip_rest(text, line, line_end)


def _skip_rest(text: TextIO, cut: str, line_end: str) -> None:
    """Goes on to the next line, without keeping more than a part of this one, of which `cut` was read."""
    while not cut.endswith(line_end or ("\n", "\r")):
        # The line's end may be cut in two.
        more = text.read(1) if line_end.startswith(cut[-1]) else text.readline(LINE_LIMIT)
        cut = cut[-1] + more if more else line_end or "\n"


def _line_ends(line: str, dialect: Csv) -> str:
    """How the first line ends in what the contract takes for one, outside quotes; empty if as the contract says."""
    text = QUOTED.sub("", line[:LINE_LIMIT]) + dialect.line_end
    before, end, _ = LINE_END.split(text, 1)
    if end == dialect.line_end or before.startswith(QUOTE) or dialect.delimiter + QUOTE in before:
        return ""
    end = "\r\n" if text.startswith("\n") and dialect.line_end == "\r" else end
    return f"{LINE_ENDS} {NAMED[end]}, the contract says {NAMED[dialect.line_end]}"


def _names(line: str, dialect: Csv) -> list[str]:
    """The names of a line that is a header, without quotes, blanks or a byte order mark around."""
    parts = line.split(dialect.delimiter, COLUMN_LIMIT)
    return [name.strip(f"{QUOTE}{BYTE_ORDER_MARK} \t\r\n") for name in parts]


def _is_another(here: list[str], names: list[str]) -> bool:
    """Whether a line with these fields is a header, but not that with `names`. It has more than half of the names, and
    they are more than half of it. A row may have as many by chance; so they are four at least, or all of the line, or
    spelled in the same way and all there, but for one that is not the first."""
    lower, known = Counter(map(str.casefold, here)), Counter(map(str.casefold, names))
    both = len(lower.keys() & known.keys() - {""})
    if both <= max(1, (len(names) - known[""]) / 2, (len(here) - lower[""]) / 2):
        return False
    missing = {*names} - {*here, ""}
    return both > 3 or lower <= known or not missing or (len(missing) == 1 and here[0] == names[0])


def fields(line: str, dialect: Csv, width: int, takes_rest: bool) -> tuple[list[str | None], bool]:
    """The fields of a row, None for the dialect's null, unquoted; and whether the last took delimiters. `width`: 0 for
    the header. Raises Malformed."""
    if not width and (why := _line_ends(line, dialect)):
        raise Malformed(why)
    if len(line) > LINE_LIMIT:
        raise Malformed(f"it has more than {LINE_LIMIT:,} characters")
    if not (line.isascii() or line.isprintable()):
        if (SHIFTED if codecs.lookup(dialect.encoding).name.startswith("utf-16") else UNDECODED).search(line):
            raise Malformed(f"it has bytes that are no {dialect.encoding}")
        if line[0] == BYTE_ORDER_MARK:
            raise Malformed("it begins with a byte order mark, as another file does")
    if QUOTE not in line:
        parts = line.split(dialect.delimiter, width - 1 if takes_rest else -1)
        texts: list[str | None] = [None if part == dialect.null else part for part in parts]
        rest = takes_rest and dialect.delimiter in parts[-1]
    else:
        texts, rest = _quoted_fields(line, dialect, width - 1 if takes_rest else -1)
    if width and len(texts) != width:
        raise Malformed(f"it has {len(texts)} fields, not {width}")
    return texts, rest


def _quoted_fields(line: str, dialect: Csv, last: int) -> tuple[list[str | None], bool]:
    """The fields of a line, of which that at the place `last` takes the rest if it is not quoted; and if it did."""
    texts: list[str | None] = []
    at, size, delimiter, rest = 0, len(line), dialect.delimiter, False
    while True:
        if line.startswith(QUOTE, at):
            match = QUOTED.match(line, at)
            if not match:
                raise Malformed("a quoted field does not end")
            texts.append(match[1].replace(QUOTE * 2, QUOTE))
            end = match.end()
            if end < size and line[end] != delimiter:
                raise Malformed("there is text behind a quoted field")
        else:
            end = line.find(delimiter, at)
            if end < 0:
                end = size
            elif len(texts) == last:
                end, rest = size, True
            text = line[at:end]
            texts.append(None if text == dialect.null else text)
        if end == size:
            return texts, rest
        at = end + 1


def _shown(line: str) -> str:
    """A line as a text, in which bytes that are none stand as `\\xff`."""
    shown = line if len(line) <= LINE_LIMIT else line[:SHOWN]
    return shown.translate(ESCAPED) if UNDECODED.search(shown) else shown
