"""Texts become values exactly, or not at all."""

import random
import re
from datetime import date, datetime
from decimal import Decimal

import pytest

from conf.settings import PROJECT
from pipelines.sources.files.values import column_of, value_of


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("bigint", "9223372036854775807", 2**63 - 1),
        ("bigint", "-9223372036854775808", -(2**63)),
        ("smallint", "-0032768", -32768),
        ("decimal(10,2)", "-0012.5", Decimal("-12.50")),
        ("decimal(10,2)", "99999999.990", Decimal("99999999.99")),
        (
            "decimal(38,6)",
            "12345678901234567890123456789012.123456",
            Decimal("12345678901234567890123456789012.123456"),
        ),
        ("decimal(5,0)", "7", Decimal(7)),
        ("boolean", "1", True),
        ("boolean", "FALSE", False),
        ("date", "2024-02-29", date(2024, 2, 29)),
        ("timestamp_ntz", "2014-02-08 10:01:36.827", datetime(2014, 2, 8, 10, 1, 36, 827000)),
        ("timestamp_ntz", "2018-11-04T00:30:00", datetime(2018, 11, 4, 0, 30)),
        ("string", " R ", " R "),
    ],
)
def test_a_text_becomes_its_value(kind: str, text: str, value: object) -> None:
    value_found = value_of(kind)(text)
    assert (value_found, type(value_found), str(value_found)) == (value, type(value), str(value))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bigint", "9223372036854775808"),
        ("smallint", "32768"),
        ("integer", "1.0"),
        ("integer", "1_000"),
        ("integer", "٣"),
        ("integer", " 1"),
        ("decimal(10,2)", "1.005"),
        ("decimal(10,2)", "100000000"),
        ("decimal(10,2)", "NaN"),
        ("decimal(10,2)", "1e3"),
        ("decimal(10,2)", "1,5"),
        ("decimal(10,2)", ".5"),
        ("boolean", "yes"),
        ("date", "2023-02-29"),
        ("date", "20230228"),
        ("timestamp_ntz", "2014-02-08"),
        ("timestamp_ntz", "2014-02-08 10:01:36.8271234"),
        ("timestamp_ntz", "2014-02-08 10:01:36+00:00"),
        ("timestamp_ntz", "0000-01-01 00:00:00"),
    ],
)
def test_what_a_type_cannot_hold_exactly_is_refused(kind: str, text: str) -> None:
    with pytest.raises(ValueError):
        value_of(kind)(text)


EDGES = {
    "integer": "-0 0 007 -2147483648 2147483648 00000000000000000001 +1 1. 1\n ٣",
    "bigint": "9223372036854775807 9223372036854775808 -9223372036854775808 -9223372036854775809",
    "boolean": "0 1 true TRUE t 01 2",
    "decimal(10,2)": "0 -0 -0.00 00012.50 1.005 1.0000 99999999.99 100000000 999999999999999999999999999999999999999 1. -.5 NaN",
    "decimal(38,6)": "99999999999999999999999999999999.999999 100000000000000000000000000000000 0.0000001 1.00000000000000",
    "decimal(5,0)": "0 12345 -99999 100000 1.0 1.5",
    "date": "0001-01-01 0000-01-01 9999-12-31 2024-02-30 2024-13-01 2024-1-1 1582-10-10",
    "timestamp_ntz": "2024-01-01 00:00:00|2024-01-01 24:00:00|2024-01-01 23:59:60|2024-01-01 00:00:00.1|0001-01-01 00:00:00|"
    "0000-01-01 00:00:00|9999-12-31 23:59:59.999999|2024-02-30 00:00:00|2024-01-01 00:00:00.1234567|2024-01-01T01:02:03",
}


@pytest.mark.parametrize("kind", EDGES)
def test_a_column_has_the_values_that_its_texts_have_one_by_one(kind: str) -> None:
    texts = EDGES[kind].split("|" if "|" in EDGES[kind] else " ")
    for text in texts:
        try:
            expected: tuple[object, dict[int, str]] = value_of(kind)(text), {}
        except ValueError:
            expected = None, {1: text}
        column, left = column_of(kind, False, [None, text])
        assert (column.to_pylist(), left) == ([None, expected[0]], expected[1])
    column, left = column_of(kind, False, [texts[0], None, "odd"])
    assert (column.to_pylist(), left) == ([column[0].as_py(), None, None], {2: "odd"})


def test_a_column_of_commas_has_the_values_that_its_texts_have_one_by_one() -> None:
    for texts in (["2024,994", None, "-0,5"], ["1", "1.5"], ["1,234,5"]):
        column, left = column_of("decimal(19,4)", True, texts)  # type: ignore[arg-type]
        for index, text in enumerate(texts):
            if index in left:
                with pytest.raises(ValueError):
                    value_of("decimal(19,4)", decimal_comma=True)(text)  # type: ignore[arg-type]
            else:
                expected = text and value_of("decimal(19,4)", decimal_comma=True)(text)
                assert column[index].as_py() == expected


def test_a_decimal_comma_is_read_only_if_the_dialect_names_the_column() -> None:
    money = value_of("decimal(19,4)", decimal_comma=True)
    assert money("2024,994") == Decimal("2024.9940") and money("-0,5") == Decimal("-0.5000")
    for text in ("1,234,5", "1.234,5", "1,234.5", "1.5"):
        with pytest.raises(ValueError):
            money(text)


@pytest.mark.parametrize("kind", ["decimal(38,6)", "decimal(38,0)", "decimal(38,38)", "decimal(19,4)", "decimal(5,2)"])
def test_long_numbers_are_exact_or_refused(kind: str) -> None:
    dice, made = random.Random(1), value_of(kind)
    for _ in range(1000):
        whole, part = ("".join(dice.choices("0123456789", k=dice.randint(0, 38))) for _ in range(2))
        text = dice.choice(["", "-"]) + (whole or "0") + (f".{part}" if part and dice.random() < 0.7 else "")
        (value,), left = column_of(kind, False, [text])
        try:
            assert value.as_py() == made(text) == Decimal(text) and not left
        except ValueError:
            assert (value.as_py(), left) == (None, {0: text})


def test_each_line_of_the_document_is_what_is_read() -> None:
    line = r"^\| `([^`]+)`(, comma)? \| `([^`]*)` \| (rescued|`[^`]*`) \|$"
    lines = re.findall(line, (PROJECT / "docs/files.md").read_text("utf-8"), re.M)
    assert len(lines) == 41
    for kind, comma, text, outcome in lines:
        (value,), left = column_of(kind, bool(comma), [text])
        assert outcome == ("rescued" if left else f"`{value.as_py()}`"), (kind, text)
