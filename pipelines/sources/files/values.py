"""Texts as values of the contracts' types, exactly or not at all."""

import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from conf.contract import DECIMAL
from pipelines.lake.schema import arrow_type

BITS = {"smallint": 16, "integer": 32, "bigint": 64}


BOOLEANS = {"0": False, "1": True, "false": False, "true": True}


WHOLE = re.compile(r"[+-]?[0-9]{1,19}")


NUMBER = re.compile(r"([+-]?)([0-9]+)(?:([.,])([0-9]+))?")


DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


# Forms that Arrow reads as `value_of` does.
YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"  # it knows one before them


USUAL = {
    **dict.fromkeys(BITS, r"\A-?[0-9]{1,19}\z"),
    "boolean": r"\A[01]\z",
    "date": rf"\A{YEAR}-[0-9]{{2}}-[0-9]{{2}}\z",
    "timestamp_ntz": rf"\A{YEAR}-[0-9]{{2}}-[0-9]{{2}} [0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]{{1,6}})?\z",
}


MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?")


def column_of(kind: str, decimal_comma: bool, texts: list[str | None]) -> tuple[pa.Array, dict[int, str]]:
    """Texts as a column of a Spark SQL type, null where the type cannot hold one exactly; those, by their place.
    Arrow makes the values where all texts have the usual form."""
    array, column = pa.array(texts, pa.string()), arrow_type(kind)
    if kind == "string":
        return array, {}
    usual = USUAL.get(kind) or _usual(kind, "," if decimal_comma else ".")
    if pc.all(pc.match_substring_regex(array, usual), min_count=0).as_py():
        try:
            return pc.cast(pc.replace_substring(array, ",", ".") if decimal_comma else array, column), {}
        except pa.ArrowInvalid:
            pass  # one does not fit
    value, found, left = value_of(kind, decimal_comma), list[Any](), dict[int, str]()
    for index, text in enumerate(texts):
        try:
            found.append(None if text is None else value(text))
        except ValueError:
            found.append(None)
            left[index] = text or ""
    return pa.array(found, column), left


def _usual(kind: str, mark: str) -> str:
    """Decimals that have room: where a text has too many digits, Arrow's sum of them runs over in silence."""
    match = DECIMAL.fullmatch(kind)
    assert match is not None
    whole, scale = int(match[1]) - int(match[2]), int(match[2])
    part = rf"([{mark}][0-9]{{1,{scale}}})?" if scale else ""
    return rf"\A-?[0-9]{{1,{whole}}}{part}\z" if whole else r"\A\z"


def value_of(kind: str, decimal_comma: bool = False) -> Callable[[str], Any]:
    """A function that makes a value of a Spark SQL type out of its text, and raises ValueError where the type cannot
    hold exactly that. Blanks are no part of a number or a date; years are 1 to 9999."""
    if match := DECIMAL.fullmatch(kind):
        return partial(_decimal, int(match[1]), int(match[2]), "," if decimal_comma else ".")
    if kind in BITS:
        return partial(_whole, BITS[kind])
    others: dict[str, Callable[[str], Any]] = {
        "string": str,
        "boolean": _boolean,
        "date": _day,
        "timestamp_ntz": _moment,
    }
    return others[kind]


def _whole(bits: int, text: str) -> int:
    value = int(_matched(WHOLE, text))
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError
    return value


def _decimal(precision: int, scale: int, mark: str, text: str) -> Decimal:
    match = NUMBER.fullmatch(text)
    if match is None or (match[3] or mark) != mark:
        raise ValueError
    sign, whole, part = match[1], match[2].lstrip("0"), (match[4] or "").rstrip("0")
    if len(part) > scale or len(whole) > precision - scale:
        raise ValueError
    return Decimal(f"{sign}{whole or 0}.{part.ljust(scale, '0')}" if scale else f"{sign}{whole or 0}")


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError
    return BOOLEANS[text.lower()]


def _day(text: str) -> date:
    return date.fromisoformat(_matched(DAY, text))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(_matched(MOMENT, text))


def _matched(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError
    return text
