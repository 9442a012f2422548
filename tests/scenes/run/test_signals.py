"""A signal in this process, while a run is recorded."""

import signal

import pytest

from pipelines.lake import delta, run_log
from tests.support.lake import Lake


def test_a_signal_that_comes_while_a_run_is_recorded_leaves_it_recorded_and_whole(
    bank: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.run("bronze")
    true = run_log.record

    def record(*arguments):  # type: ignore[no-untyped-def]
        signal.raise_signal(signal.SIGINT)
        true(*arguments)

    monkeypatch.setattr(run_log, "record", record)
    with pytest.raises(KeyboardInterrupt):
        bank.run("bronze")
    path = bank.settings().bronze_path
    run = run_log.last_run(path, "cartoes")
    assert run is not None and run.run == 2
    assert all(delta.version(path / "cartoes" / table.name) == table.version for table in run.tables)
