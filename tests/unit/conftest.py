"""A unit test needs no Spark, no server and no process of the command line; one that asks for them belongs elsewhere."""

import pytest

ELSEWHERE = {"spark", "server", "server_folder", "cli_here"}


def pytest_runtest_setup(item: pytest.Item) -> None:
    if asked := sorted(ELSEWHERE & set(getattr(item, "fixturenames", ()))):
        pytest.fail(
            f"tests/unit has no {', '.join(asked)}: move this test to tests/scenes or tests/process", pytrace=False
        )
