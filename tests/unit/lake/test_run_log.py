"""The run log as a Delta table."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from conf.contract import Severity
from pipelines.core.console import Report
from pipelines.core.errors import StorageFault
from pipelines.lake import delta, run_log
from pipelines.lake import runs as lake_runs


def test_a_gap_behind_the_checkpoint_of_a_long_run_log_is_found(tmp_path: Path) -> None:
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    for number in range(1, 14):
        run_log.record(tmp_path, lake_runs.Run(number, "", "teste", None, "", "", moment, moment))
    log = tmp_path / run_log.RUNS / "_delta_log"
    assert not list(log.glob(".*")) and DeltaTable(tmp_path / run_log.RUNS).version() == 12
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

    def failing(path: Path, *arguments: Any) -> int | None:
        if path.name != run_log.RUNS or not early:
            version = append_rows(path, *arguments)
        if path.name == run_log.RUNS:
            raise fault
        return version

    run_log.record(tmp_path, runs[0])
    monkeypatch.setattr(run_log, "append_rows", failing)
    early = False
    run_log.record(tmp_path, runs[1])
    early = True
    with pytest.raises(type(fault)):
        run_log.record(tmp_path, runs[2])
    assert run_log.read_runs(tmp_path) == runs[:2]


def runs_until(last: int) -> list[lake_runs.Run]:
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    return [lake_runs.Run(number, "", "teste", None, "", "", moment, moment) for number in range(1, last + 1)]


def test_the_run_log_of_many_nights_is_a_few_small_files_and_has_every_run(tmp_path: Path) -> None:
    runs = runs_until(61)
    for run in runs:
        run_log.record(tmp_path, run)
        assert run_log.last_run(tmp_path, "teste") == run
    path = tmp_path / run_log.RUNS
    assert run_log.read_runs(tmp_path) == runs
    assert len(list(path.glob("*.parquet"))) <= 2 * run_log.MANY_SMALL_FILES
    assert len(list((path / "_delta_log").glob("*.json"))) <= 20 and len(list((path / "_delta_log").iterdir())) <= 24
    assert sum(file.stat().st_size for file in path.rglob("*")) < 61 * 4_000
    table = pa.table(DeltaTable(path).to_pyarrow_table())
    assert sorted(table["run"].to_pylist()) == [*range(1, 62)], "for other readers, too"


@pytest.mark.parametrize("damage", [b"", b"\0" * 700, b'{"commitInfo": {"timest'])
@pytest.mark.parametrize("name", run_log.RECORDS)
def test_a_commit_that_the_power_cut_off_is_stepped_over_and_removed(tmp_path: Path, name: str, damage: bytes) -> None:
    rule = lake_runs.RuleRun(1, "teste", "a", "b", Severity.WARN, 1, 0)
    runs = runs_until(12)
    for run in runs:
        run_log.record(tmp_path, run, (rule,))
    (tmp_path / name / "_delta_log").mkdir(parents=True, exist_ok=True)
    head = delta.version(tmp_path / name)
    cut_off = [tmp_path / name / f"_delta_log/{(head or 0) + more:020d}.json" for more in (1, 2)]
    for file in cut_off:
        file.write_bytes(damage)
    assert run_log.read_runs(tmp_path) and delta.version(tmp_path / name) == head
    with Report() as report:
        run_log.roll_back(tmp_path, "teste", report)
        warnings = report.new_warnings()
    assert [str(file) in text for file, text in zip(cut_off, warnings, strict=True)] == [True, True]
    assert not any(file.exists() for file in cut_off)
    run_log.record(tmp_path, replace(runs[0], run=13), (rule,))
    assert [run.run for run in run_log.read_runs(tmp_path)] == [*range(1, 14)]


def test_a_checkpoint_that_is_cut_off_can_be_deleted_and_nothing_is_lost(tmp_path: Path) -> None:
    for run in runs_until(23):
        run_log.record(tmp_path, run)
    log = tmp_path / run_log.RUNS / "_delta_log"
    last = log / f"{20:020d}.checkpoint.parquet"
    last.write_bytes(b"")
    with pytest.raises(StorageFault, match=r"0020.checkpoint.parquet is damaged; delete it and _delta_log/_last_check"):
        run_log.read_runs(tmp_path)
    for file in (last, log / "_last_checkpoint"):
        file.unlink()
    assert run_log.read_runs(tmp_path) == runs_until(23)
    run_log.record(tmp_path, runs_until(24)[-1])
    assert run_log.read_runs(tmp_path) == runs_until(24)
