"""Texts become values exactly, or not at all."""

from datetime import date, datetime
from decimal import Decimal

import pytest

from pipelines.texts import value_of


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
    found = value_of(kind)(text)
    assert (found, type(found), str(found)) == (value, type(value), str(value))


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


def test_a_comma_is_a_decimals_where_the_dialect_says_so() -> None:
    money = value_of("decimal(19,4)", decimal_comma=True)
    assert money("2024,994") == Decimal("2024.9940") and money("-0,5") == Decimal("-0.5000")
    for text in ("1,234,5", "1.234,5", "1,234.5", "1.5"):
        with pytest.raises(ValueError):
            money(text)
