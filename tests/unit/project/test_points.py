"""The points of the commit protocol are in the code, each is tried, and what is not armed does nothing."""

import ast

import pytest

from conf.settings import PROJECT
from pipelines.core import points
from pipelines.core.points import Point, crash_point
from tests.support.crash import SCENARIOS, STREAM_SCENARIOS, arm


@pytest.fixture(autouse=True)
def disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "armed", None)


def test_each_point_is_passed_in_the_code_and_tried_by_a_scenario() -> None:
    trees = [ast.parse(file.read_text("utf-8")) for file in (PROJECT / "pipelines").rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    passed = {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "crash_point"}
    assert passed == {str(point) for point in Point}
    assert {scenario.point for scenario in (SCENARIOS | STREAM_SCENARIOS).values()} == {point.name for point in Point}


def test_an_armed_crash_point_acts_at_the_nth_pass_only() -> None:
    crash_point(Point.RECORDED)
    happened: list[str] = []
    arm("RECORDED", lambda: happened.append("recorded"), nth=2)
    for point in (Point.RECORDED, Point.TABLE_COMMITTED, Point.RECORDED, Point.RECORDED):
        crash_point(point)
    assert happened == ["recorded"]


def test_an_unknown_crash_point_is_refused() -> None:
    with pytest.raises(KeyError, match="RECORDD"):
        arm("RECORDD", lambda: None)
