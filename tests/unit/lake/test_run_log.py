"""The run log as a Delta table."""

import errno
import os
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Metadata, write_deltalake
from pydantic import TypeAdapter

from conf.contract import Severity
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault, StorageFault
from pipelines.lake import delta, durable, run_log
from pipelines.lake import runs as lake_runs
from pipelines.lake.versions import table_version
from silver.cartoes import conta


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


def test_small_files_become_one_and_the_rows_of_every_run_stay(tmp_path: Path) -> None:
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    for run in runs_until(7):
        file = lake_runs.IngestedFile(run.run, "teste", "a", f"{run.run}.csv", "x", 1, moment, run.run, 1, 0, "", ())
        run_log.record(tmp_path, run, files=[file])
    run_log.compact(tmp_path / run_log.FILES, 8)
    assert delta.version(tmp_path / run_log.FILES) == 6
    for name in (run_log.FILES, run_log.RUNS):
        run_log.compact(tmp_path / name, 7)
        assert len(delta.file_paths(tmp_path / name, delta.version(tmp_path / name))) == 1
    assert [file.run for file in run_log.read_files(tmp_path, "teste")] == [*range(1, 8)]
    assert run_log.read_runs(tmp_path)[-1].files_version == 6


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


@dataclass(frozen=True)
class WiderTable(lake_runs.TableRun):
    novo: int = 7


@dataclass(frozen=True)
class WiderRun(lake_runs.Run):
    tables: tuple[WiderTable, ...] = ()
    novo: str = "x"


@dataclass(frozen=True)
class WiderRule(lake_runs.RuleRun):
    novo: tuple[str, ...] = ("x",)


@dataclass(frozen=True)
class WiderFile(lake_runs.IngestedFile):
    novo: datetime | None = None


MOMENT = datetime(2024, 1, 2, tzinfo=UTC)


def record_night(layer_path: Path, number: int, wider: bool = False) -> lake_runs.Run:
    """Records a run with a table, a rule and a file; `wider` records have a field more."""
    kinds: tuple[Any, ...] = (lake_runs.TableRun, lake_runs.Run, lake_runs.RuleRun, lake_runs.IngestedFile)
    a_table, a_run, a_rule, a_file = (WiderTable, WiderRun, WiderRule, WiderFile) if wider else kinds
    run = a_run(number, "", "teste", None, "", "", MOMENT, MOMENT, (a_table("coisa", 0, 1, 1),))
    rule = a_rule(number, "teste", "coisa", "regra", Severity.WARN, 1, 0)
    file = a_file(number, "teste", "coisa", f"{number}.csv", "abc", 1, MOMENT, 1, 1, 0)
    return run_log.record(layer_path, run, (rule,), (file,))


def next_format(patch: pytest.MonkeyPatch) -> None:
    """Makes this software one whose records have a field more each."""
    patch.setattr(run_log, "FORMAT", run_log.FORMAT + 1)
    for name, record in (("RUN", WiderRun), ("RULE_RUN", WiderRule), ("INGESTED_FILE", WiderFile)):
        patch.setattr(run_log, name, run_log._schema(record))
    patch.setattr(run_log, "A_RUN", TypeAdapter(WiderRun))
    patch.setattr(run_log, "RULE_RUNS", TypeAdapter(list[WiderRule]))
    patch.setattr(run_log, "INGESTED_FILES", TypeAdapter(list[WiderFile]))


def as_was(metadata: Metadata) -> tuple[Any, ...]:
    return (metadata.id, metadata.name, metadata.description, metadata.created_time)


def test_a_lake_goes_on_for_three_nights_when_each_record_gets_a_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = record_night(tmp_path, 1)
    was = {name: DeltaTable(tmp_path / name).metadata() for name in run_log.RECORDS}
    with monkeypatch.context() as patch:
        next_format(patch)
        nights = [record_night(tmp_path, number, wider=True) for number in (2, 3, 4)]
        earliest, *others = run_log.read_runs(tmp_path)
        assert others == nights and (earliest.run, earliest.tables[0].name) == (1, "coisa")
        assert earliest == WiderRun(**{**vars(first), "tables": (WiderTable("coisa", 0, 1, 1),)}), (
            "defaults where it has none"
        )
        assert [file.run for file in run_log.read_files(tmp_path, "teste")] == [1, 2, 3, 4]
        assert run_log.read_rules(tmp_path, earliest) and run_log.read_rules(tmp_path, nights[-1])
        for name in run_log.RECORDS:
            now = DeltaTable(tmp_path / name)
            assert as_was(now.metadata()) == as_was(was[name]) and now.version() == 3, "a commit a night"
            assert now.metadata().configuration[run_log.FORMAT_PROPERTY] == str(run_log.FORMAT)
    with pytest.raises(StorageFault, match=r"_runs: newer software recorded runs here, in format \d+; this software"):
        run_log.last_run(tmp_path, "teste")


@pytest.mark.parametrize("name", run_log.RECORDS)
def test_a_table_whose_name_older_software_took_away_is_read_and_gets_it_back(tmp_path: Path, name: str) -> None:
    record_night(tmp_path, 1)
    table = DeltaTable(tmp_path / name)
    was, more = table.metadata(), pa.table({"run": [2], "domain": ["outro"], "novo": ["x"]})
    older = pa.table(table.to_pyarrow_table())
    write_deltalake(
        tmp_path / name, more if name != run_log.RUNS else wider_row(older), mode="append", schema_mode="merge"
    )
    assert DeltaTable(tmp_path / name).metadata().name is None
    assert run_log.read_runs(tmp_path, domain="teste") and run_log.read_files(tmp_path, "teste")
    record_night(tmp_path, 3)
    now = DeltaTable(tmp_path / name).metadata()
    assert (now.id, now.name, now.description) == (was.id, name, was.description)
    assert [file.run for file in run_log.read_files(tmp_path, "teste")] == [1, 3]


def wider_row(runs: pa.Table) -> pa.Table:
    """A run of another domain, with a column more."""
    row = runs.to_pylist()[0] | {"run": 2, "domain": "outro"}
    return pa.Table.from_pylist([row], schema=runs.schema).append_column("novo", pa.array(["x"]))


def test_a_table_without_a_name_that_has_no_records_is_not_the_run_log(tmp_path: Path) -> None:
    write_deltalake(tmp_path / run_log.RUNS, pa.table({"x": [1]}))
    with pytest.raises(StorageFault, match="_runs: _delta_log is of another table, its rows are no records of runs"):
        run_log.read_runs(tmp_path)


def test_files_without_the_number_of_their_first_line_get_it_from_the_files_before(tmp_path: Path) -> None:
    for run in runs_until(3):
        files = [
            lake_runs.IngestedFile(run.run, "teste", table, f"{run.run}.csv", "abc", 1, MOMENT, 0, lines, 0)
            for table, lines in (("coisa", 4 + run.run), ("outra", 1))
        ]
        run_log.record(tmp_path, run, files=files)
    path = tmp_path / run_log.FILES
    older = pa.table(DeltaTable(path).to_pyarrow_table()).drop_columns("first")
    shutil.rmtree(path)
    write_deltalake(path, older, name=path.name)
    firsts = [(file.table, file.first) for file in run_log.read_files(tmp_path, "teste")]
    assert sorted(firsts) == [("coisa", 1), ("coisa", 6), ("coisa", 12), ("outra", 1), ("outra", 2), ("outra", 3)]


def test_a_layer_that_recorded_no_columns_is_to_be_run_again(tmp_path: Path) -> None:
    run = lake_runs.Run(1, "", "cartoes", None, "", "", MOMENT, MOMENT, (lake_runs.TableRun("conta", 0, 1, 1),))
    with pytest.raises(QualityFault, match="run 1 did not record the columns of conta: run `make silver` again"):
        table_version(tmp_path, run, conta.TABLE)


def ingested(run: lake_runs.Run) -> list[lake_runs.IngestedFile]:
    return [lake_runs.IngestedFile(run.run, run.domain, "a", "a.csv", "x", 1, run.started, 1, 1, 0)]


@pytest.mark.parametrize("domains", [("teste",), ("outro", "teste"), ("teste", "outro")])
def test_files_that_a_run_of_any_domain_recorded_are_missed(tmp_path: Path, domains: tuple[str, ...]) -> None:
    runs = [replace(run, domain=domain) for run, domain in zip(runs_until(len(domains)), domains, strict=True)]
    for run in runs:
        run_log.record(tmp_path, run, files=ingested(run))
    run_log.check_tables("bronze", tmp_path, runs[0])
    path = tmp_path / run_log.FILES
    (path / f"_delta_log/{delta.version(path):020d}.json").write_text("")
    with pytest.raises(StorageFault, match=r"_files: _delta_log/0+\d.json is empty; restore it from a backup"):
        run_log.check_tables("bronze", tmp_path, runs[0])


def test_a_run_whose_row_cannot_be_brought_to_the_disk_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = runs_until(2)
    run_log.record(tmp_path, first)
    sync = durable.sync

    def failing(path: Path) -> None:
        if path == tmp_path / run_log.RUNS / "_delta_log":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(path)

    monkeypatch.setattr(durable, "sync", failing)
    with pytest.raises(StorageFault, match="_runs: Input/output error"):
        run_log.record(tmp_path, second)
    monkeypatch.undo()
    assert run_log.read_runs(tmp_path) == [first]
    run_log.record(tmp_path, second)
    assert run_log.read_runs(tmp_path) == [first, second]


def test_a_reader_that_opened_the_run_log_a_while_ago_still_reads_it(tmp_path: Path) -> None:
    *first, last, after = runs_until(run_log.MANY_SMALL_FILES + 2)
    for run in first:
        run_log.record(tmp_path, run)
    opened = DeltaTable(tmp_path / run_log.RUNS)
    for run in (last, after):  # the first of them combines the files
        run_log.record(tmp_path, run)
    assert opened.to_pyarrow_table().num_rows == len(first)


def test_files_of_runs_with_six_digits_go_too(tmp_path: Path) -> None:
    for run in runs_until(20):
        run_log.record(tmp_path, replace(run, run=run.run + 123_456))
    assert len(list((tmp_path / run_log.RUNS).glob("*.parquet"))) <= 2 * run_log.MANY_SMALL_FILES
