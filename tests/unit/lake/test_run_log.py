"""The run log as a Delta table."""

from datetime import UTC, datetime
from pathlib import Path

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
