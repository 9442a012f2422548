"""Texts of others: what they hide is shown, and values of rows are not."""

import io
import json
import sys

import psycopg2
import pytest

from pipelines.core.console import Report
from pipelines.core.errors import SourceFault
from pipelines.core.grid import Grid
from pipelines.core.texts import LONGEST, trace, visible, without_values

HOSTILE = {
    "\x1b[2J": r"\x1b[2J",
    "a\nerror: all is lost": r"a\nerror: all is lost",
    "\r\t\0\x7f": r"\r\t\x00\x7f",
    "\x85\x9b31m": r"\x85\x9b31m",
    "\u202egpj": r"\u202egpj",
    "\u2066\u200b\ufeff": r"\u2066\u200b\ufeff",
    "\u2028\u2029": r"\u2028\u2029",
    "\U000e0041": r"\U000e0041",
    "m\udce9dia": r"m\xe9dia",
    "\ud83d": r"\ud83d",
    "[red]não[/red] 😀\u00a0…": "[red]não[/red] 😀\u00a0…",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
@pytest.mark.parametrize("as_json", [False, True])
def test_whatever_is_shown_is_one_line_that_commands_no_terminal(
    text: str, shown: str, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    table = Grid(("name",), words=("name",))
    table.add_row(text)
    with Report(as_json=as_json) as report:
        report.say(text)
        report.show(table)
        report.command(text)
        report.step(text)
        report.passing(text)
        report.again(text)
        report.warning(text)
        assert report.new_warnings() == (shown,), "as it is recorded"
    for stream, number in ((output, 3), (errors, 4)):
        stream.flush()
        lines = stream.buffer.getvalue().decode().splitlines()
        if as_json:
            lines = [json.loads(line)["message"].removeprefix("name ") for line in lines]
        assert [line.removeprefix("warning: ") for line in lines if line != "name"] == [shown] * number


def test_a_very_long_text_is_cut() -> None:
    assert visible("x" * 10**6) == "x" * LONGEST + "…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("division by zero", "division by zero"),
        ('relation "clientes" does not exist\nLINE 1: SELECT 1', "relation … does not exist…"),
        ("João deve 12", "… deve 12"),
        ("o cartão 4111-1111 1111 de ANA", "o … … … de …"),
        ("write to a.b@c.org, key (id)=(77)", "write to … key …=…"),
        ("x\nDETAIL:  Ana\nCONTEXT:  y", "x…"),
    ],
)
def test_of_a_librarys_error_only_small_words_stay(text: str, shown: str) -> None:
    assert without_values(text) == shown


def test_a_trace_names_places_and_our_words_and_no_value_that_a_driver_quotes() -> None:
    quoted = 'invalid: "João"\x1b[2J\nCONTEXT: 4111111111111111'
    with pytest.raises(SourceFault) as caught:
        try:
            raise psycopg2.DataError(quoted)
        except psycopg2.Error as error:
            raise SourceFault("reading public.conta") from error
    shown = trace(caught.value)
    assert "DataError: invalid: …" in shown and "reading public.conta" in shown and 'File "' in shown
    assert not any(word in shown for word in ("João", "\x1b", "4111"))
