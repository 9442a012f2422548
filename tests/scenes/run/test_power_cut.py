"""The power may go at any moment: what a run recorded is there, and what it did not complete is no fault of the lake.

The tests' process says what it syncs; all else is lost, which is more than any file system would lose.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
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


@dataclass
class Night:
    """A night of a lake: what reached its disk, and how many cuts there were when each layer's call ended."""

    lake: Lake
    disk: Disk
    number: int
    ended: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, lake: Lake, number: int) -> "Night":
        night = cls(lake, Disk(lake.folder), number)
        with night.disk.watched():
            for layer in LAYERS:
                lake.run(layer)
                night.ended[layer] = len(night.disk.cuts)
        return night

    def after(self, cut: int, folder: Path, with_names: bool) -> Lake:
        """The lake as a cut left it. What was recorded by then is there, and readers find it sound."""
        self.disk.cuts[cut].restore(self.lake.folder, folder, with_names)
        after = replace(self.lake, folder=folder)
        for layer in LAYERS:
            path = after.settings().layer_path(layer)
            run = run_log.last_run(path, "cartoes")
            if run:
                run_log.check_tables(layer, path, run)
            assert self.ended[layer] > cut + 1 or (run and run.run == self.number), f"{layer} after sync {cut}"
        return after


@pytest.fixture
def second(keyed_lake: Lake) -> Night:
    """A night that applies what changed."""
    execute(keyed_lake.address, *CHANGES.split(";"))
    return Night.of(keyed_lake, 2)


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
    second: Night, tmp_path: Path, cli: CliHere
) -> None:
    assert len(second.disk.cuts) > 20
    for cut in range(0, len(second.disk.cuts), 5):  # in no step with a commit's three syncs, nor a record's four
        after = second.after(cut, tmp_path / f"{cut}", with_names=cut % 2 == 0)
        if cut % 20 == 15:
            goes_on(after, second.lake, cli)


def test_the_first_night_of_a_lake_is_on_the_disk_too_with_all_its_folders(keyed: Lake, tmp_path: Path) -> None:
    first = Night.of(keyed, 1)
    for cut in range(0, len(first.disk.cuts), 4):
        first.after(cut, tmp_path / f"{cut}", with_names=False)
    after = first.after(len(first.disk.cuts) - 1, tmp_path / "end", with_names=False)
    assert after.csv == keyed.csv
    after.run()
    assert after.csv == keyed.csv


@pytest.mark.long
@pytest.mark.parametrize("with_names", [False, True])
def test_after_each_of_these_cuts_the_next_run_gives_what_the_source_says(
    second: Night, with_names: bool, tmp_path: Path, cli: CliHere
) -> None:
    for cut in range(len(second.disk.cuts)):
        goes_on(second.after(cut, tmp_path / f"{cut}", with_names), second.lake, cli)


def test_a_data_file_is_synced_once_and_a_commit_costs_three_syncs(second: Night) -> None:
    folder, syncs = second.lake.folder, second.disk.syncs
    data = set(folder.glob("lake/**/part-00002-*.parquet"))
    commits = [path for path in syncs if path.name == "commit"]
    logs = {path for path in syncs if path.name == delta.LOG}
    tables = {path.parent for path in logs}
    csv = [path for path in syncs if path.suffix == ".csv"]
    assert set(Counter(syncs).values()) == {1}
    feeds = {path.parent for path in data if path.parent.name == delta.FEED}
    assert {*syncs} == data | {*commits} | logs | tables | feeds | {*csv} | {folder / "export"} and len(feeds) > 3
    assert len(commits) == len(logs) == 10 and len(csv) == 1
    assert {path.name for path in tables} > {*run_log.RECORDS} - {run_log.FILES}


def test_a_night_without_changes_syncs_what_the_run_log_gets_and_nothing_else(keyed_lake: Lake) -> None:
    night = Night.of(keyed_lake, 2)
    assert len(night.disk.syncs) == 16  # four for the row of each layer, four for silver's rules
