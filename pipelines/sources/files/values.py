"""Texts as values of the contracts' types, exactly or not at all."""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.types import Type, type_of
from pipelines.lake.schema import arrow_type

BOOLEANS = {"0": False, "1": True, "f": False, "t": True, "false": False, "true": True}

BOOLEAN = re.compile("|".join(BOOLEANS))

WHOLE = re.compile(r"[+-]?[0-9]{1,19}")

NUMBER = re.compile(r"([+-]?)([0-9]+)(?:([.,])([0-9]+))?")

FLOAT = re.compile(r"[+-]?[0-9]+(?:([.,])[0-9]+)?(?:[eE][+-]?[0-9]+)?")

NO_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

BYTES = re.compile(r"\\x[0-9a-fA-F]*")

DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?")

INSTANT = re.compile(MOMENT.pattern + r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)")

# Forms that Arrow reads as `value_of` does.
USUAL_DAY = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[0-9]{2}-[0-9]{2}"  # Arrow knows a year 0

USUAL_MOMENT = rf"{USUAL_DAY} [0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(\.[0-9]{{1,6}})?"


def column_of(kind: str, decimal_comma: bool, texts: list[str | None]) -> tuple[pa.Array, dict[int, str]]:
    """Texts as a column of a Spark SQL type, null where the type cannot hold a text exactly; those texts, by place.

    Arrow makes the values if all texts have the usual form."""
    array, column = pa.array(texts, pa.string()), arrow_type(kind)
    if kind == "string":
        return array, {}
    value, usual = _reading(kind, decimal_comma)
    if usual and pc.all(pc.match_substring_regex(array, rf"\A{usual}\z"), min_count=0).as_py():
        try:
            return pc.cast(pc.replace_substring(array, ",", ".") if decimal_comma else array, column), {}
        except pa.ArrowInvalid:
            pass  # a text does not fit
    values, unfit = list[Any](), dict[int, str]()
    for index, text in enumerate(texts):
        try:
            values.append(None if text is None else value(text))
        except ValueError:
            values.append(None)
            unfit[index] = text or ""
    return pa.array(values, column), unfit


def value_of(kind: str, decimal_comma: bool = False) -> Callable[[str], Any]:
    """A function that makes a value of a Spark SQL type out of its text; it raises ValueError if the type cannot hold
    exactly that, except that a float is the nearest one. Blanks are no part of a value; years are 1 to 9999."""
    return _reading(kind, decimal_comma)[0]


def _reading(kind: str, decimal_comma: bool) -> tuple[Callable[[str], Any], str]:
    """That function, and the form of texts of which Arrow makes the same values. Numbers have room: Arrow's sum of a
    decimal's digits runs over in silence, and a float becomes infinite."""
    wanted, mark = type_of(kind), "," if decimal_comma else "."
    if wanted.is_decimal:
        whole, scale = wanted.precision - wanted.scale, wanted.scale
        part = rf"([{mark}][0-9]{{1,{scale}}})?" if scale else ""
        return partial(_decimal, wanted, mark), rf"-?[0-9]{{1,{whole}}}{part}" if whole else ""
    if wanted.is_integer:
        return partial(_whole, wanted.bits), "-?[0-9]{1,19}"
    if wanted.is_float:
        return partial(_float, wanted, mark), rf"-?[0-9]{{1,15}}([{mark}][0-9]{{1,15}})?"
    others: dict[str, tuple[Callable[[str], Any], str]] = {
        "string": (str, ""),
        "boolean": (lambda text: BOOLEANS[_matched(BOOLEAN, text.lower())], "[01]"),
        "binary": (lambda text: bytes.fromhex(_matched(BYTES, text)[2:]), ""),
        "date": (lambda text: date.fromisoformat(_matched(DAY, text)), USUAL_DAY),
        "timestamp_ntz": (lambda text: datetime.fromisoformat(_matched(MOMENT, text)), USUAL_MOMENT),
        "timestamp": (_instant, rf"{USUAL_MOMENT}(Z|\+00)"),
    }
    return others[kind]


def _whole(bits: int, text: str) -> int:
    value = int(_matched(WHOLE, text))
    if not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise ValueError
    return value


def _decimal(kind: Type, mark: str, text: str) -> Decimal:
    match = NUMBER.fullmatch(text)
    if match is None or (match[3] or mark) != mark:
        raise ValueError
    sign, whole, part = match[1], match[2].lstrip("0"), (match[4] or "").rstrip("0")
    if len(part) > kind.scale or len(whole) > kind.precision - kind.scale:
        raise ValueError
    return Decimal(f"{sign}{whole or 0}.{part.ljust(kind.scale, '0')}" if kind.scale else f"{sign}{whole or 0}")


def _float(kind: Type, mark: str, text: str) -> float:
    """The nearest value; what would become infinite, or zero without being that, is refused."""
    if text in NO_NUMBERS:
        return NO_NUMBERS[text]
    match = FLOAT.fullmatch(text)
    if match is None or (match[1] or mark) != mark:
        raise ValueError
    plain = text.replace(",", ".")
    value: float = pa.scalar(plain).cast(arrow_type(kind.name)).as_py()
    if math.isinf(value) or (not value and re.match(r"[^eE]*[1-9]", plain)):
        raise ValueError
    return value


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(_matched(INSTANT, text)).astimezone(UTC)
    except OverflowError as error:
        raise ValueError from error


def _matched(pattern: re.Pattern[str], text: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError
    return text
