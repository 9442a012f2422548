"""The run log as a Delta table."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import StorageFault
from pipelines.lake import run_log
from pipelines.lake import runs as lake_runs


def test_a_gap_behind_the_checkpoint_of_a_long_run_log_is_found(tmp_path: Path) -> None:
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    for number in range(1, 14):
        run_log.record(tmp_path, lake_runs.Run(number, "", "teste", None, "", "", moment, moment))
    log = tmp_path / run_log.RUNS / "_delta_log"
    assert list(log.glob("*.checkpoint.parquet")) and len(run_log.read_runs(tmp_path)) == 13
    for version in range(5):
        (log / f"{version:020d}.json").unlink()  # as Delta's own clean-up does
    assert len(run_log.read_runs(tmp_path)) == 13
    (log / f"{6:020d}.json").unlink()
    with pytest.raises(StorageFault, match=r"_delta_log/0{19}6.json is missing"):
        run_log.read_runs(tmp_path)


@pytest.mark.parametrize("fault", [StorageFault("no room for a checkpoint"), RuntimeError("the unexpected")])
def test_a_run_counts_if_what_fails_comes_after_its_commit(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    runs = [lake_runs.Run(number, "", "teste", None, "", "", moment, moment) for number in (1, 2, 3)]
    append_rows = run_log.append_rows

    def failing(path: Path, *arguments: Any) -> None:
        if path.name == run_log.RUNS and not early:
            append_rows(path, *arguments)
        raise fault

    run_log.record(tmp_path, runs[0])
    monkeypatch.setattr(run_log, "append_rows", failing)
    early = False
    run_log.record(tmp_path, runs[1])
    early = True
    with pytest.raises(type(fault)):
        run_log.record(tmp_path, runs[2])
    assert run_log.read_runs(tmp_path) == runs[:2]
