"""Files of a failed run: those of tables that were not committed go, those of committed ones are another's to roll back."""

from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conf.contract import Table
from gold.cartoes import movimento_flat
from pipelines.core.console import Report
from pipelines.lake import delta
from pipelines.lake.checksums import ColumnRun
from pipelines.lake.runs import Run, TableRun
from pipelines.lake.versions import StagedTable
from pipelines.run.lifecycle import rolled_back_on_failure, stage

TABLE = movimento_flat.TABLE
NOW = datetime(2024, 3, 1, tzinfo=UTC)
RUN = Run(7, "lake", TABLE.domain, None, "", "", NOW, NOW)


def staged_table(layer_path: Path, name: str, table: Table = TABLE) -> StagedTable:
    """A table with one file, which shows in no step of a run."""
    path, file = layer_path / table.domain / f"{name}__quarantine", delta.part_name(RUN.run)
    delta.make_folder(path)
    pq.write_table(pa.table({"_batch": [1]}), path / file)
    table_run = TableRun(path.name, 0, 1, 1, columns=(ColumnRun("_batch", "bigint", "0"),))
    return StagedTable(table_run, table, path, [file])


def left_in(layer_path: Path) -> set[str]:
    return {file.parent.name for file in layer_path.rglob("*.parquet")}


def test_after_a_failure_only_committed_tables_and_other_runs_keep_their_files(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk"), rolled_back_on_failure(tmp_path, RUN):
        staged = stage("gold", (staged_table(tmp_path, name) for name in ("a", "b", "c")), Report(quiet=True))
        staged[0].commit(RUN.run)
        (staged[1].path / delta.part_name(RUN.run - 1)).touch()
        raise RuntimeError("disk")
    assert left_in(tmp_path) == {"a__quarantine", "b__quarantine"}
    assert not (staged[1].path / staged[1].files[0]).exists()


def test_a_build_that_fails_leaves_no_file_of_the_tables_before(tmp_path: Path) -> None:
    def build() -> Generator[StagedTable, None, None]:
        yield staged_table(tmp_path, "a")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"), rolled_back_on_failure(tmp_path, RUN):
        stage("gold", build(), Report(quiet=True))
    assert not left_in(tmp_path)


def test_nothing_builds_any_more_when_a_table_cannot_be_shown(tmp_path: Path) -> None:
    ended = []

    def build() -> Generator[StagedTable, None, None]:
        try:
            yield staged_table(tmp_path, "a")
            yield staged_table(tmp_path, "b")
        finally:
            ended.append("build")

    report = Report(quiet=True)
    report.finished = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    building = build()
    with pytest.raises(KeyboardInterrupt):
        stage("gold", building, report)
    assert ended == ["build"] and next(building, None) is None


def test_a_table_whose_log_is_damaged_keeps_no_other_from_being_cleared(tmp_path: Path) -> None:
    damaged, whole = (staged_table(tmp_path, name) for name in ("a", "b"))
    damaged.commit(RUN.run)
    (damaged.path / delta.LOG / f"{0:020d}.json").write_text('{"protocol": {}, "metaData": {}}')
    with pytest.raises(RuntimeError, match="disk"), rolled_back_on_failure(tmp_path, replace(RUN)):
        raise RuntimeError("disk")
    assert left_in(tmp_path) == {"a__quarantine"} and not (whole.path / whole.files[0]).exists()
