"""Files of a failed run: those of tables that were not committed go, those of committed ones are another's to roll back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gold.cartoes import movimento_flat
from pipelines.core.console import Report
from pipelines.lake.runs import TableRun
from pipelines.lake.versions import StagedTable, discarded_on_failure
from pipelines.run.lifecycle import stage


def staged_table(folder: Path, name: str) -> StagedTable:
    """A table with one file, which shows in no step of a run."""
    (folder / name).touch()
    return StagedTable(TableRun(f"{name}__quarantine", 0, 0, 0), movimento_flat.TABLE, folder, [name])


def test_after_a_failure_only_committed_tables_keep_their_files(tmp_path: Path) -> None:
    staged: list[StagedTable] = []
    with pytest.raises(RuntimeError, match="disk"), discarded_on_failure(staged):
        stage("gold", (staged_table(tmp_path, name) for name in ("a", "b", "c")), staged, Report(quiet=True))
        del staged[0]  # as a commit does
        raise RuntimeError("disk")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and not staged


def test_a_build_that_fails_leaves_no_file_of_the_tables_before(tmp_path: Path) -> None:
    def build() -> Iterator[StagedTable]:
        yield staged_table(tmp_path, "a")
        raise RuntimeError("disk")

    staged: list[StagedTable] = []
    with pytest.raises(RuntimeError, match="disk"), discarded_on_failure(staged):
        stage("gold", build(), staged, Report(quiet=True))
    assert not [*tmp_path.iterdir()]
