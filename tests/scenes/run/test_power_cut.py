"""The power may go at any moment: what a run recorded is there, and what it did not complete is no fault of the lake.

The tests' process says what it syncs; all else is lost, which is more than any file system would lose.
"""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.core.names import LAYERS
from pipelines.lake import delta, run_log
from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.power import Disk
from tests.support.process import connection_settings
from tests.support.source import execute

CHANGES = """UPDATE associado SET nome = 'Novo' WHERE id = 1; DELETE FROM movimento WHERE id = 3;
INSERT INTO movimento VALUES (900, 12.34, 'novo', '2024-05-05', 6)"""


def recorded(lake: Lake) -> dict[str, int]:
    """The last run of each layer, its tables checked."""
    runs = {layer: lake.last(layer) for layer in LAYERS}
    for layer, run in runs.items():
        run_log.check_tables(layer, lake.settings().layer_path(layer), run)
    return {layer: run.run for layer, run in runs.items()}


@pytest.fixture
def night(keyed_lake: Lake) -> tuple[Lake, Disk, dict[str, int]]:
    """A lake, what reached its disk in its second night, and how many cuts there were when each layer's call ended."""
    execute(keyed_lake.address, *CHANGES.split(";"))
    disk, ended = Disk(keyed_lake.folder), {}
    with disk.watched():
        for layer in LAYERS:
            keyed_lake.run(layer)
            ended[layer] = len(disk.cuts)
    return keyed_lake, disk, ended


def left(night: tuple[Lake, Disk, dict[str, int]], number: int, folder: Path, with_names: bool) -> Lake:
    """The lake as a cut left it. What was recorded by then is there, and readers find it sound."""
    lake, disk, ended = night
    disk.cuts[number].restore(lake.folder, folder, with_names)
    after = Lake(folder, lake.address, lake.spark)
    runs = recorded(after)
    assert all(runs[layer] == 2 for layer in LAYERS if ended[layer] <= number + 1), f"after sync {number}"
    return after


def goes_on(after: Lake, lake: Lake, cli: CliHere) -> None:
    """The commands answer, the next run mends what is cut off, and the lake is what the source says."""
    cli.folder, environment = after.folder, connection_settings(after.address)
    assert cli("status", env=environment).returncode == 0, cli.errors.getvalue()
    after.run()
    assert after.csv == lake.csv
    assert cli("reconcile", env=environment).returncode == 0, cli.errors.getvalue()
    logs = (after.folder / "lake").rglob(delta.LOG)
    assert not any(delta.cut_off(log.parent) for log in logs)


def test_after_a_power_cut_at_any_moment_the_lake_is_sound_and_has_each_run_that_ended(
    night: tuple[Lake, Disk, dict[str, int]], tmp_path: Path, cli: CliHere
) -> None:
    lake, disk, _ = night
    assert len(disk.cuts) > 20
    for number in range(0, len(disk.cuts), 2):
        after = left(night, number, tmp_path / f"{number}", with_names=number % 4 == 0)
        if number % 20 == 16:
            goes_on(after, lake, cli)


@pytest.mark.long
@pytest.mark.parametrize("with_names", [False, True])
def test_after_each_of_these_cuts_the_next_run_gives_what_the_source_says(
    night: tuple[Lake, Disk, dict[str, int]], with_names: bool, tmp_path: Path, cli: CliHere
) -> None:
    lake, disk, _ = night
    for number in range(len(disk.cuts)):
        goes_on(left(night, number, tmp_path / f"{number}", with_names), lake, cli)


def test_a_data_file_is_synced_once_and_a_commit_costs_three_syncs(night: tuple[Lake, Disk, dict[str, int]]) -> None:
    lake, disk, _ = night
    data = set(lake.folder.glob("lake/**/part-00002-*.parquet"))
    commits = [path for path in disk.syncs if path.name == "commit"]
    logs = {path for path in disk.syncs if path.name == delta.LOG}
    tables = {path.parent for path in logs}
    csv = [path for path in disk.syncs if path.suffix == ".csv"]
    assert set(Counter(disk.syncs).values()) == {1}
    assert {*disk.syncs} == data | {*commits} | logs | tables | {*csv} | {lake.folder / "export"}
    assert len(commits) == len(logs) == 10 and len(csv) == 1
    assert {path.name for path in tables} > {*run_log.RECORDS} - {run_log.FILES}
