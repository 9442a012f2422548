"""What `make plan` reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conf.settings import Postgres, load
from pipelines.commands import plan
from pipelines.core.console import Report

SERVER = Postgres(host="db1,db2", database="d", user="u")


def test_a_plan_reads_from_the_server_that_its_snapshot_is_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another one of several does not have it."""
    readers = list[Postgres]()

    @contextmanager
    def source(*_: object) -> Iterator[Postgres]:
        yield SERVER

    @contextmanager
    def taken(server: Postgres, *_: object) -> Iterator[Any]:
        yield SimpleNamespace(server=server.servers[1], exported="3-1")

    def reader(server: Postgres, *_: object) -> Any:
        readers.append(server)
        return SimpleNamespace(close=lambda: None)

    changed = {"source_server": source, "take_snapshot": taken, "Reader": reader, "_context": lambda *_: None}
    changed |= {"plan_loads": lambda *_: [], "read_plans": lambda *_: []}
    for name, value in changed.items():
        monkeypatch.setattr(plan, name, value)
    assert not list(plan._of_postgres(load({}, base=tmp_path)[0], "cooperativa", frozenset(), Report(quiet=True)))
    assert [each.host for each in readers] == ["db2"]
