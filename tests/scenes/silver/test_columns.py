"""Column functions on the texts that people really type."""

import re
from itertools import product

import pytest
from pyspark.sql import SparkSession

from silver.columns import BLANK, BLANKS, card_digits, masked, tidy, trimmed
from tests.support.frames import frame_of

pytestmark = pytest.mark.jvm


@pytest.mark.parametrize(
    ("function", "given", "expected"),
    [
        (trimmed, "  a  b\n", "a  b"),
        (trimmed, "a\nb", "a\nb"),
        (trimmed, "\u00a0\u3000a\t", "a"),
        (trimmed, " \n\u2003", None),
        (trimmed, "", None),
        (trimmed, None, None),
        (tidy, "  Ana \u00a0 Maria\n d'Ávila ", "Ana Maria d'Ávila"),
        (tidy, "McDonald", "McDonald"),
        (tidy, "   ", None),
        (card_digits, "0041 1111-1111\u00a01111", "00411111" + "11111111"),
        (card_digits, " - ", None),
        (card_digits, "4111x", "4111x"),
        (masked, "4111111111111111", "************1111"),
        (masked, "12345", "*2345"),
        (masked, "1234", "****"),
        (masked, "", ""),
        (masked, None, None),
    ],
)
def test_column_functions_give_the_value_that_their_row_names(spark: SparkSession, function, given, expected) -> None:  # type: ignore[no-untyped-def]
    frame = frame_of(spark, "text string", [(given,)]).select(function("text").alias("text"))
    assert frame.first() == (expected,)


def test_a_text_is_cleaned_the_same_whether_a_look_finds_it_clean_or_not(spark: SparkSession) -> None:
    texts = ["".join(parts) for size in range(5) for parts in product("a7-É字 \n\u2003", repeat=size)]
    texts += ["a b " * 100_000, "a  b" * 100_000, "é" * 1_000_000]
    frame = frame_of(spark, "text string", [(text,) for text in texts])
    results = frame.select("text", trimmed("text"), tidy("text"), card_digits("text")).collect()
    assert len(results) == len(texts)
    for text, *cleaned in results:
        ends = text.strip(BLANKS)
        inside, digits = re.sub(f"[{BLANK}]+", " ", ends), re.sub(f"[{BLANK}-]", "", text)
        assert cleaned == [ends or None, inside or None, digits or None]
