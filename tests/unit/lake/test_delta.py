"""The lake's bookkeeping: the commit point, recovery, locks."""

import json
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from conf.contract import Column, Table
from conf.settings import Settings, load
from pipelines.core import names
from pipelines.core.errors import LockedFault, QualityFault, StorageFault
from pipelines.lake import commits, delta, folders, run_log, schema
from pipelines.lake.checksums import ColumnRun
from pipelines.lake.runs import IngestedFile, Mode, Run, TableRun
from pipelines.lake.versions import StagedTable

NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
RUN = Run(1, "lake", "teste", None, "embedded", "1:2:", NOW, NOW, (TableRun("coisa", 0, 3, 2, 1),))
TABLE = Table("silver.teste.coisa", "Things. One row per thing.", (Column("id", "bigint", "Id", key=True),))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load({"LAKEHOUSE_ROOT": "a lake"}, base=tmp_path)[0]


def test_a_recorded_run_reads_back_as_it_was_and_the_last_one_counts(tmp_path: Path) -> None:
    assert run_log.read_runs(tmp_path) == [] and run_log.last_run(tmp_path, "teste") is None
    other = replace(RUN, run=3, domain="outro")
    for run in (RUN, replace(RUN, run=2, position="x"), other):
        run_log.record(tmp_path, run)
    assert run_log.read_runs(tmp_path) == [RUN, replace(RUN, run=2, position="x"), other]
    assert run_log.last_run(tmp_path, "teste") == replace(RUN, run=2, position="x")


def test_a_table_younger_than_the_run_is_named() -> None:
    with pytest.raises(QualityFault, match="no table nova; run that layer again"):
        RUN.table("nova")


def test_a_table_that_a_crash_left_ahead_is_brought_back(tmp_path: Path) -> None:
    path = tmp_path / "teste/coisa"
    for value in (1, 2):
        write_deltalake(path, pa.table({"id": [value]}), mode="overwrite")
    run_log.record(tmp_path, RUN)  # names version 0
    run_log.roll_back(tmp_path, "teste")
    assert DeltaTable(path).file_uris() == DeltaTable(path, version=0).file_uris()
    before = delta.version(path)
    run_log.record(tmp_path, replace(RUN, run=2, tables=(replace(RUN.tables[0], version=before or 0),)))
    run_log.roll_back(tmp_path, "teste")
    assert delta.version(path) == before


def test_an_empty_table_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "teste/coisa"
    path.mkdir(parents=True)
    wide, narrow = (commits.Change(1, schema.types_of(TABLE, more), []) for more in ({"_reasons": "array<string>"}, {}))
    assert [commits.commit(path, TABLE, wide) for _ in range(3)] == [0, 0, 0]
    assert commits.commit(path, TABLE, narrow) == 1
    assert delta.file_paths(path, 1) == []


def test_a_folder_that_cannot_be_made_is_a_storage_fault_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file")
    settings, _ = load({}, base=tmp_path)
    with pytest.raises(StorageFault, match=r"bronze folder .*/lake/bronze: Not a directory"), folders.locked(settings):
        pass


def test_a_folder_with_other_files_is_refused_and_its_mode_stays(settings: Settings) -> None:
    settings.bronze_path.mkdir(parents=True)
    settings.bronze_path.chmod(0o755)
    (settings.bronze_path / "notes.txt").touch()
    with pytest.raises(StorageFault, match="holds other files; name an empty one"), folders.locked(settings):
        pass
    assert settings.bronze_path.stat().st_mode & 0o777 == 0o755


def test_the_layers_are_closed_to_others(settings: Settings) -> None:
    with folders.locked(settings):
        assert [settings.layer_path(layer).stat().st_mode & 0o777 for layer in names.LAYERS] == [0o700, 0o750, 0o750]
    with folders.locked(settings.model_copy(update={"card_numbers": "plain"})):
        assert {settings.layer_path(layer).stat().st_mode & 0o777 for layer in names.LAYERS} == {0o700}


def test_a_table_that_was_brought_back_is_not_brought_back_again(tmp_path: Path) -> None:
    path = tmp_path / "teste/coisa"
    for value in (1, 2):
        write_deltalake(path, pa.table({"id": [value]}), mode="overwrite")
    run_log.record(tmp_path, RUN)
    for _ in range(3):
        run_log.roll_back(tmp_path, "teste")
    assert delta.version(path) == 2


def test_files_of_runs_that_did_not_complete_are_swept_and_the_others_stay_in_order(tmp_path: Path) -> None:
    def taken(run: int, number: int) -> IngestedFile:
        return IngestedFile(run, "teste", "coisa", f"{number:05d}.csv", "x", 1, NOW, number, 1, 0, "", ("cor", "ção"))

    def record(run: int, *numbers: int) -> None:
        run_log.record(tmp_path, replace(RUN, run=run), files=[taken(run, number) for number in numbers])

    record(1, *range(1, 2_001))
    for run in range(2, 9):
        record(run, 2_000 + run)
    run_log.append_rows(tmp_path / run_log.FILES, 9, [asdict(taken(9, 99))], run_log.INGESTED_FILE)
    assert len(delta.file_paths(tmp_path / run_log.FILES, 8)) == 1, "rows of all runs lie in one file"
    assert len(run_log.read_files(tmp_path, "teste")) == 2_007, "a run that is not recorded has taken nothing"
    record(9)
    files = run_log.read_files(tmp_path, "teste")
    assert [file.first for file in files] == [*range(1, 2_001), *range(2_002, 2_009)]
    assert files[0] == taken(1, 1) and run_log.read_files(tmp_path, "outro") == []


@pytest.mark.parametrize("brief", [True, False])
def test_a_brief_holder_of_the_lock_waits_and_is_waited_for(tmp_path: Path, brief: bool) -> None:
    settings, _ = load({}, base=tmp_path)
    entered, leave, waited = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with folders.locked(settings, patient=brief):
            entered.set()
            leave.wait(30)

    def wait() -> None:
        with folders.locked(settings, patient=not brief):
            waited.set()

    holder, other = threading.Thread(target=hold), threading.Thread(target=wait)
    holder.start()
    assert entered.wait(30)
    other.start()
    assert not waited.wait(0.3)
    if not brief:
        with pytest.raises(LockedFault, match="wait for it to end"), folders.locked(settings):
            pass
    leave.set()
    assert waited.wait(30)
    holder.join()
    other.join()


def older_schema(record: pa.Schema) -> pa.Schema:
    """The run log's schema as older software wrote it: a CSV of the whole run, no mode of a table."""
    table = record.field("tables").type.value_type
    older = pa.struct([field for field in table if field.name not in ("mode", "csv_sha256")])
    fields = [pa.field("tables", pa.list_(older)) if field.name == "tables" else field for field in record]
    return pa.schema([*fields, pa.field("csv_sha256", pa.string())])


def record_as_older_software(path: Path, *rows: dict[str, object]) -> None:
    table = pa.Table.from_pylist(list(rows), schema=older_schema(run_log.RUN))
    write_deltalake(path / "_runs", table, name="_runs", description="Runs.", configuration=delta.PROPERTIES)


def older_record(**more: object) -> dict[str, object]:
    tables = (("movimento_flat", "whole: asked for"), ("outra", "unchanged"), ("mais", "1 written, 0 replaced"))
    named = [{"name": name, "version": 0, "rows_in": 1, "rows_out": 1, "how": how} for name, how in tables]
    return asdict(RUN) | {"tables": named, "domain": "cartoes", "csv_sha256": "abc"} | more


def test_records_of_older_software_say_in_words_what_a_mode_says_now(tmp_path: Path) -> None:
    record_as_older_software(tmp_path, older_record())
    (run,) = run_log.read_runs(tmp_path)
    assert [table.mode for table in run.tables] == [Mode.FULL, Mode.UNCHANGED, Mode.CHANGED]


def test_the_csv_that_an_older_run_recorded_is_that_of_the_table_that_has_one(tmp_path: Path) -> None:
    record_as_older_software(tmp_path, older_record())
    (run,) = run_log.read_runs(tmp_path)
    assert [table.csv_sha256 for table in run.tables] == ["abc", None, None]


def test_a_run_log_of_older_software_gets_what_it_lacks_and_stays_the_table_that_it_is(tmp_path: Path) -> None:
    record_as_older_software(tmp_path, older_record())
    was = DeltaTable(tmp_path / "_runs").metadata()
    runs = [replace(RUN, run=number, tables=(replace(RUN.tables[0], csv_sha256="x"),)) for number in (2, 3)]
    for run in runs:
        run_log.record(tmp_path, run)
    table = DeltaTable(tmp_path / "_runs")
    now = table.metadata()
    assert (now.id, now.name, now.description, now.created_time) == (was.id, "_runs", "Runs.", was.created_time)
    assert was.configuration == delta.PROPERTIES
    skipped = {"delta.dataSkippingStatsColumns": "run"}
    assert now.configuration == delta.PROPERTIES | skipped | {run_log.FORMAT_PROPERTY: str(run_log.FORMAT)}
    assert table.version() == 2, "a commit for each run"
    assert run_log.read_runs(tmp_path)[1:] == runs and run_log.last_run(tmp_path, "teste") == runs[-1]


def test_a_run_log_of_newer_software_keeps_what_only_that_knows(tmp_path: Path) -> None:
    newer = pa.schema([*run_log.RUN, pa.field("more", pa.string())])
    write_deltalake(tmp_path / "_runs", pa.Table.from_pylist([asdict(RUN) | {"more": "x"}], schema=newer), name="_runs")
    run_log.record(tmp_path, replace(RUN, run=2))
    table = pa.table(DeltaTable(tmp_path / "_runs").to_pyarrow_table())
    assert sorted(table["more"].to_pylist(), key=str) == [None, "x"]


def written(path: Path, name: str, **columns: list[object]) -> str:
    """A data file with these columns. Its name."""
    (path / delta.LOG).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path / name)
    return name


def history(path: Path) -> list[tuple[str, str]]:
    """The operation and the user's words of each commit, oldest first."""
    return [(commit["operation"], commit.get("userMetadata", "")) for commit in reversed(DeltaTable(path).history())]


def test_each_commit_says_what_it_did_and_of_which_run_and_the_table_stays_the_same(tmp_path: Path) -> None:
    path = tmp_path / "teste/coisa"
    first, second, third, all_of_them = (
        written(path, name, id=list(ids)) for name, ids in (("a", "1"), ("b", "23"), ("c", "3"), ("d", "13"))
    )
    of_texts = replace(TABLE, columns=(replace(TABLE.columns[0], type="string"),))
    types = schema.types_of(of_texts, {})
    commits.commit(path, of_texts, commits.Change(1, types, [first]))
    made = DeltaTable(path).metadata()
    commits.commit(path, of_texts, commits.Change(2, types, [second], [first]))
    commits.commit(path, of_texts, commits.Change(3, types, [third], [first], counts=(0, 0, 1)))
    commits.commit(path, of_texts, commits.Change(4, types, [all_of_them], [], compacts=True))
    commits.commit(path, of_texts, commits.Change(5, types, [all_of_them]))
    run_log.restore_version(path, 1, 6)
    assert history(path) == [
        (operation, f"silver/{run}")
        for run, operation in enumerate(("WRITE", "WRITE", "MERGE", "OPTIMIZE", "WRITE", "RESTORE"), 1)
    ]
    metrics = [commit["operationMetrics"] for commit in reversed(DeltaTable(path).history())]
    assert (metrics[1]["numFiles"], metrics[1]["numOutputRows"]) == ("1", "2")
    assert (metrics[2]["numTargetFilesAdded"], metrics[2]["numTargetFilesRemoved"]) == ("1", "1")
    assert [metrics[2][f"numTargetRows{what}"] for what in ("Inserted", "Updated", "Deleted")] == ["0", "0", "1"]
    assert (metrics[3]["numAddedFiles"], metrics[3]["numRemovedFiles"]) == ("1", "2")
    now = DeltaTable(path).metadata()
    assert (now.id, now.created_time) == (made.id, made.created_time)


def test_a_table_of_before_gets_its_promises_without_new_files_and_may_go_back(tmp_path: Path) -> None:
    path = tmp_path / "teste/coisa"
    name = delta.full_name("silver", "teste", "coisa")
    write_deltalake(path, pa.table({"id": [1], "quando": pa.array([NOW.replace(tzinfo=None)])}), name=name)
    of_before, files = DeltaTable(path).metadata(), delta.file_paths(path, 0)
    table = replace(TABLE, columns=(*TABLE.columns, Column("quando", "timestamp_ntz", "When", nullable=True)))
    kept, types = [Path(file).name for file in files], schema.types_of(table, {})
    assert [commits.commit(path, table, commits.Change(run, types, [], kept)) for run in (2, 3)] == [1, 1]
    now = DeltaTable(path)
    assert (now.metadata().id, now.metadata().name, now.metadata().description) == (of_before.id, name, TABLE.comment)
    assert history(path)[1:] == [("UPDATE SCHEMA", "silver/2")] and delta.file_paths(path, 1) == files
    identifier, when = now.schema().fields
    assert (identifier.nullable, identifier.metadata) == (False, {"comment": "Id"})
    assert (when.nullable, when.metadata) == (True, {"comment": "When"})
    assert now.to_pyarrow_table().num_rows == 1
    assert run_log.restore_version(path, 0, 4) == 2 and DeltaTable(path).schema().fields[0].nullable
    assert commits.commit(path, table, commits.Change(5, types, [], kept)) == 3
    assert not DeltaTable(path).schema().fields[0].nullable


def test_what_somebody_made_of_a_table_by_hand_is_undone_its_name_too(tmp_path: Path) -> None:
    path = tmp_path / "teste/coisa"
    types = schema.types_of(TABLE, {})
    commits.commit(path, TABLE, commits.Change(1, types, [written(path, "a", id=[1])]))
    run_log.record(tmp_path, replace(RUN, tables=(replace(RUN.tables[0], version=0),)))
    theirs = json.loads((path / delta.LOG / f"{0:020d}.json").read_text().splitlines()[2])
    theirs["metaData"] |= {"name": None, "description": "mine"}
    (path / delta.LOG / f"{1:020d}.json").write_text(json.dumps(theirs))
    assert DeltaTable(path).metadata().name is None
    run_log.roll_back(tmp_path, "teste")
    assert DeltaTable(path).metadata().name == "silver.teste.coisa"
    delta.checked(path, None, "silver.teste.coisa")


def test_rows_in_a_folder_of_their_own_a_partition_and_properties_by_hand_are_undone(tmp_path: Path) -> None:
    path, types = tmp_path / "teste/coisa", schema.types_of(TABLE, {"x": "bigint"})
    commits.commit(path, TABLE, commits.Change(1, types, [written(path, "a", id=[1], x=[2])]))
    first = [json.loads(line) for line in (path / delta.LOG / f"{0:020d}.json").read_text().splitlines()]
    metadata, add = (next(line[key] for line in first if key in line) for key in ("metaData", "add"))
    written(path / "x=1", "b", id=[7], x=[1])
    theirs = metadata | {"configuration": metadata["configuration"] | {"delta.appendOnly": "true"}}
    theirs |= {"partitionColumns": ["x"]}
    lines = [{"metaData": theirs}, {"add": add | {"path": "x=1/b", "partitionValues": {"x": "1"}}}]
    (path / delta.LOG / f"{1:020d}.json").write_text("\n".join(map(json.dumps, lines)))
    run_log.record(tmp_path, RUN)
    run_log.roll_back(tmp_path, "teste")
    now = DeltaTable(path)
    assert now.version() == 2 and pa.table(now.to_pyarrow_table()).to_pydict() == {"id": [1], "x": [2]}
    assert now.metadata().configuration == metadata["configuration"] and now.metadata().partition_columns == []


@pytest.mark.parametrize(
    ("name", "promised"),
    [("coisa", {"id"}), ("coisa__quarantine", set()), ("coisa__history", {"id", "_valid_from", "_current"})],
)
def test_keys_and_required_columns_are_not_null_except_in_quarantine_and_bronze(name: str, promised: set[str]) -> None:
    assert schema.required(TABLE, name) == promised
    assert schema.required(replace(TABLE, module="bronze.teste.coisa"), "coisa") == frozenset()


def test_a_null_in_a_required_column_ends_the_run(tmp_path: Path) -> None:
    name = written(tmp_path, "a", id=[1, None])
    columns = (ColumnRun("id", "bigint", "0"),)
    staged = StagedTable(replace(RUN.tables[0], columns=columns), TABLE, tmp_path, [name])
    with pytest.raises(QualityFault, match="silver.coisa: id is null in a row"):
        staged.require_values()
