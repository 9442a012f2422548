"""Texts of others, such as names of files and columns or errors of libraries, as a screen or a log may show them."""

import re
import traceback
import unicodedata

LONGEST = 8000  # characters of a text that are shown

# Categories of Unicode: control, format, surrogate, breaks of lines and of paragraphs.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(text: str) -> str:
    """A text in one line, in which nothing controls a terminal, changes the direction of what follows or is a half of a
    character: `\\n`, `\\x1b`, `\\u202e`. A byte of a name that is no UTF-8 is `\\xff`. Very long texts are cut."""
    if not text.isprintable():
        text = "".join(_escaped(c) if unicodedata.category(c) in HIDDEN else c for c in text)
    return shorten(text, LONGEST)


def few(names: list[str]) -> str:
    """Up to three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if names[3:] else "")


def shorten(text: str, longest: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00 if 0xDC80 <= ord(character) <= 0xDCFF else None  # what Python makes of such a byte
    return f"\\x{byte:02x}" if byte else character.encode("unicode_escape").decode()


# Of a library's error, what may be a value of a row: what is quoted or in parentheses, addresses, numbers, names, and
# what a server adds below its sentence.
VALUES = re.compile(
    r"""Original Line: .*?(?=\n[^\n]+\n+Possible |\Z)"""
    r"""|\n\s*(DETAIL|HINT|CONTEXT|QUERY|LINE|WHERE)[ :0-9].*|"[^"]*"|'[^']*'|`[^`]*`|\([^()]*\)"""
    r"""|\S+@\S+|\w*\d{3}[\w.-]*|\b[A-ZÀ-Þ]\w*\b(?!:)|\w*[^\x00-\x7f]+\w*""",
    re.DOTALL,
)

# Libraries whose errors quote values.
OF_DATA = ("psycopg2.", "adbc_driver_manager.", "_duckdb.", "duckdb.", "pyarrow.")


def without_values(text: str) -> str:
    """A text of a library with … for all that may be a value of a row."""
    return VALUES.sub("…", text)


def trace(error: BaseException) -> str:
    """Where an error and its causes come from, without the values that libraries quote."""
    parts = [without_values(part) if part.startswith(OF_DATA) else part for part in traceback.format_exception(error)]
    return "\n".join(visible(line) for part in parts for line in part.rstrip().split("\n"))
