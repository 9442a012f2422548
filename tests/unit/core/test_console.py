"""What a person sees at a terminal, what a report writes as JSON."""

import io
import json

import pytest

from pipelines.core.console import Report, starting
from pipelines.core.grid import Grid


def test_a_report_as_json_has_a_line_for_each_row_of_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    table = Grid(("rows in", "note"), words=("note",))
    table.add_row("1", "[b]x[/b]\n")
    table.add_row("", "y")
    with Report(as_json=True) as report:
        report.say("")
        report.show(table)
        report.say("a\nb")
        report.say("", "c", "d")
        report.warning("w")
        report.again("c")
    output, warned = capsys.readouterr()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [entry["message"] for entry in lines] == ["rows_in 1, note [b]x[/b]\\n", "note y", "a\\nb", "c d"]
    assert lines[0]["row"] == {"rows_in": "1", "note": "[b]x[/b]\\n"}
    assert [(entry["level"], entry["message"]) for entry in map(json.loads, warned.splitlines())] == [
        ("warning", "c"),
        ("warning", "w"),
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "as_json", "shown"), [(Terminal, False, 1), (Terminal, True, 0), (io.StringIO, False, 0)]
)
def test_a_terminal_shows_at_once_that_something_starts_and_a_log_does_not(
    stream: type[io.StringIO], as_json: bool, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = stream()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", errors)
    with starting(as_json):
        assert errors.getvalue().count("starting") == shown
    assert bool(errors.getvalue()) == bool(shown)
