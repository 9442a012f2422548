"""The tests themselves stand on what is shared, never on each other."""

import ast

import pytest

from conf.settings import PROJECT


def test_no_test_module_imports_another() -> None:
    imported = {
        (path.name, node.module)
        for path in (PROJECT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests.")
    }
    assert len(imported) > 50
    assert {pair for pair in imported if not f"{pair[1]}.".startswith("tests.support.")} == set()


@pytest.mark.xdist_group("together")
def test_tests_of_a_group_share_a_worker(request: pytest.FixtureRequest) -> None:
    """xdist distributes by the end of a test's name; where it cannot set that, it does not group and says nothing."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("not distributed by groups")
    assert request.node.nodeid.endswith("@together")
