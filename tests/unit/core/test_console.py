"""What a report writes as JSON."""

import json

import pytest

from pipelines.core.console import Report
from pipelines.core.grid import Grid


def test_a_report_as_json_has_a_line_for_each_row_of_a_table_and_none_of_a_sample(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, sample = Grid(("rows in", "note"), words=("note",)), Grid(("nome",), words=("nome",))
    sample.add_row("Ana")
    table.add_row("1", "[b]x[/b]\n")
    table.add_row("", "y")
    with Report(as_json=True) as report:
        report.sample(sample)
        report.say("")
        report.show(table)
        report.say("a\nb")
        report.warning("w")
        report.again("c")
    output, warned = capsys.readouterr()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [entry["message"] for entry in lines] == ["rows_in 1, note [b]x[/b]", "note y", "a b"]
    assert lines[0]["row"] == {"rows_in": "1", "note": "[b]x[/b] "}
    assert [(entry["level"], entry["message"]) for entry in map(json.loads, warned.splitlines())] == [
        ("warning", "c"),
        ("warning", "w"),
    ]
    with Report() as report:
        report.sample(sample)
    assert capsys.readouterr().out == "nome\nAna\n"
