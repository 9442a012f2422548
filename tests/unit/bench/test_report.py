"""What the benchmark writes of its results."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.tables import Result, lines


def test_a_way_with_one_wrong_result_has_no_time_in_the_table() -> None:
    right: dict[str, Any] = {"ours": {"seconds": 1.5}, "D": {"seconds": 2.5}}
    result = Result(300, {}, [right, right | {"D": {"wrong": ["csv.rows"]}}])
    assert lines(result) == [["", "ours", "DuckDB"], ["whole, s", "1.50", "wrong"], ["ours to this, whole", "1.00", ""]]


def test_the_report_writes_between_its_marks_and_says_whether_a_bar_holds(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results, document = tmp_path / "results", tmp_path / "performance.md"
    results.mkdir()
    ways = {"ours": {"seconds": 4.0}, "E": {"seconds": 10.0}, "T": {"seconds": 8.0}}
    for size in (5_000_000, 20_000_000):
        text = json.dumps({"size": size, "machine": {"CPU": "one"}, "rounds": [ways]})
        (results / f"{size}.json").write_text(text)
    document.write_text(f"before\n\n{report.MARKS[0]}\nstale\n{report.MARKS[1]}\nafter\n")
    written = []
    for _ in range(2):
        report.write(results, document)
        written.append((document.read_text(), document.with_suffix(".svg").read_bytes()))
    assert written[0] == written[1]
    text = written[0][0]
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text
    assert "| whole run, 5 million, to plain Spark | 0.35 | 0.4 | does not hold |" in text
    assert "| whole run, 20 million, to tuned Spark | 0.6 | 0.5 | holds |" in text
    for label in (b">plain Spark<", b">10 s<", b">20,000,000 movements<"):
        assert label in written[0][1]
    assert "| CSV, 5 million, to plain Spark | 0.33 |  | not measured |" in text
