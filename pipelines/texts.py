"""Texts as values of the contracts' types, exactly or not at all."""

import re
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from conf.contract import DECIMAL

BITS = {"smallint": 16, "integer": 32, "bigint": 64}
BOOLEANS = {"0": False, "1": True, "false": False, "true": True}
WHOLE = re.compile(r"[+-]?[0-9]{1,19}")
NUMBER = re.compile(r"([+-]?)([0-9]+)(?:([.,])([0-9]+))?")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?")


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
