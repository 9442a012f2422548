"""What a worker of a cluster says that it lacks."""

import sys

import pytest

from pipelines.core.identity import software
from pipelines.spark.worker import missing_on_worker


def test_a_worker_names_a_package_that_only_reading_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_on_worker({}, software(""), (), None)[1] == []
    monkeypatch.delitem(sys.modules, "pipelines.sources.postgres.reader")
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    (problem,) = missing_on_worker({}, software(""), (), None)[1]
    assert "lacks adbc_driver_postgresql: install" in problem
