"""`history`, `restore`, `maintain` and time travel: old runs come back, and only what nobody needs goes."""

import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from gold.cartoes import movimento_flat
from pipelines.commands import history as commands_history
from pipelines.commands import maintain as commands_maintain
from pipelines.commands.reconcile import with_lake
from pipelines.commands.reconcile.reconcile import reconcile
from pipelines.commands.shell import create_tables, last_runs, travel
from pipelines.core.console import Report
from pipelines.core.errors import StorageFault, UsageFault
from pipelines.core.names import LAYERS
from pipelines.export.publish import export
from pipelines.lake import delta, layout, run_log
from pipelines.lake.runs import RunContext, reason_for_full_derived
from pipelines.run import lifecycle
from tests.support.lake import Lake
from tests.support.oracle import agree
from tests.support.process import Cli, connection_settings, meanwhile
from tests.support.source import PERSONAL, execute, fill


def maintained(lakehouse: Lake, **given: str) -> None:
    with Report() as report:
        commands_maintain.maintain(lakehouse.settings(**given), report)


def lines(text: str) -> list[str]:
    return [re.sub(" +", " ", line).strip() for line in text.splitlines()]


def test_history_lists_each_run_with_what_changed(cli: Cli, nights_lake: Lake) -> None:
    result = cli("history", env=connection_settings(nights_lake.address))
    printed = lines(result.stdout)
    assert printed[0] == "run domain what finished (UTC) rows set aside seconds changes"
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    for pattern in (
        rf"bronze/3 cartoes run {when} 31 0 \d+\.\d associado other content; conta other content; movimento -2 rows",
        rf"silver/2 cartoes run of bronze/2 {when} 32 1 \d+\.\d conta other content; movimento \+1 rows; movimento__quarantine \+1 rows",
        rf"gold/1 cartoes run of silver/1 {when} 16 0 \d+\.\d first run",
    ):
        assert any(re.fullmatch(pattern, line) for line in printed), (pattern, printed)
    assert "keeps those of the last 30 days" in printed[-1]
    empty = cli("history", env=connection_settings(nights_lake.address) | {"LAKEHOUSE_ROOT": "elsewhere"})
    assert "no layer has a complete run" in empty.stdout and not (nights_lake.folder / "elsewhere").exists()


def test_a_layer_goes_back_to_a_run_as_a_new_run_with_its_csv_and_forward_again(cli: Cli, nights_lake: Lake) -> None:
    settings, env = nights_lake.settings(), connection_settings(nights_lake.address)
    result = cli("restore", env=env | {"LAKEHOUSE_CALL__RUN": "gold/2"})
    assert result.returncode == 0, result.stderr
    assert "gold/4: gold is again what gold/2 left" in result.stderr
    assert nights_lake.csv == (nights_lake.folder / "2.csv").read_bytes() != (nights_lake.folder / "3.csv").read_bytes()
    last = run_log.last_run(settings.gold_path, "cartoes")
    assert last is not None and (last.run, last.kind, last.content_of, last.upstream_run) == (4, "restore", 2, 2)
    assert "gold was built from silver/2, but silver/3 is the last: `make gold`" in cli("status", env=env).stdout
    path = settings.gold_path / "cartoes/movimento_flat"
    assert DeltaTable(path).to_pyarrow_table().num_rows == 17
    nights_lake.run("gold")
    assert nights_lake.csv == (nights_lake.folder / "3.csv").read_bytes()


def test_an_old_lake_of_which_runs_were_restored_and_removed_agrees_and_the_next_run_goes_on(
    nights_lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Delta refuses versions that were superseded more than a week ago, unless it is told otherwise."""
    settings = nights_lake.settings()
    _a_month_ago(nights_lake)
    run_log.restore_version(settings.gold_path / "cartoes/movimento_flat", 0, 3)  # a commit that no run recorded
    with Report() as report:
        commands_history.restore(settings, "silver/2", report)
    quarantine = DeltaTable(settings.silver_path / "cartoes/movimento__quarantine").to_pyarrow_table()
    assert quarantine["id_movimento"].to_pylist() == [51]
    failed = {
        (rule.table, rule.rule): rule.failed
        for rule in run_log.read_rules(settings.silver_path, nights_lake.last("silver"))
    }
    assert failed["movimento", "cartao:missing"] == 1
    nights_lake.run("gold")
    assert nights_lake.csv == (nights_lake.folder / "2.csv").read_bytes()
    _age(settings.layer_path, "3", days=40)
    maintained(nights_lake, HISTORY_DAYS="30")
    with Report() as report:
        reconcile(settings, ("cartoes",), report, nights_lake.spark)
    assert capsys.readouterr().out.endswith("everything agrees\n")
    numbers = [nights_lake.last(layer).run for layer in LAYERS]
    monkeypatch.setattr(lifecycle, "datetime", clock(datetime.now(UTC) - timedelta(days=365)))
    nights_lake.run()
    assert [nights_lake.last(layer).run for layer in LAYERS] == [number + 1 for number in numbers]
    assert agree(nights_lake) == 16


def test_restore_refuses_a_run_that_does_not_exist(nights_lake: Lake) -> None:
    for word in ("", "gold", "gold/x", "gold/9", "copper/1", "3"):
        with (
            pytest.raises(UsageFault, match="`make history` lists them|name one of `make history`"),
            Report() as report,
        ):
            commands_history.restore(nights_lake.settings(), word, report)


@pytest.mark.long
@pytest.mark.jvm
def test_the_shell_has_delta_tables_whose_history_has_a_line_a_run_and_the_next_run_undoes_what_is_written_there(
    nights_lake: Lake, any_spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    from delta.tables import DeltaTable as SparksTable

    settings, spark = nights_lake.settings(), nights_lake.spark
    assert create_tables(settings, last_runs(settings), spark) == []
    commits = SparksTable.forName(spark, "gold.movimento_flat").history().orderBy("version").collect()
    assert [commit.userMetadata for commit in commits] == ["gold/1", "gold/2", "gold/3"]
    assert all("numOutputRows" in commit.operationMetrics for commit in commits)
    detail = spark.sql("DESCRIBE DETAIL silver.conta__history").first()
    assert detail and detail.description.startswith("Every version of the rows of silver.conta.")
    promised = {field.name: field.nullable for field in spark.table("silver.conta").schema}
    assert promised == {"id_conta": False, "tipo": True, "data_criacao": True, "id_associado": False}
    assert {row.comment for row in spark.sql("DESCRIBE silver.conta").collect()} >= {"Account id"}
    counts = [spark.sql(f"SELECT * FROM gold.movimento_flat VERSION AS OF {version}").count() for version in (0, 1)]
    assert counts == [16, 17]
    spark.sql("INSERT INTO silver.conta SELECT * FROM silver.conta")
    silver = nights_lake.settings(BRONZE_PATH="none/bronze", GOLD_PATH="none/gold")
    (line,) = create_tables(silver, last_runs(silver), spark)
    assert line.startswith("silver.conta is a view: version 3 is of no complete run, 2 is; its Delta table is delta.`")
    replace(nights_lake, spark=any_spark).run("silver")
    assert (
        "silver/cartoes/conta: a WRITE by Apache-Spark/4.2.0 is undone; only runs write here" in capsys.readouterr().err
    )
    assert create_tables(silver, last_runs(silver), spark) == [] and agree(nights_lake) == 16


@pytest.mark.jvm
def test_the_shell_shows_the_last_run_and_any_kept_one_of_an_old_lake_too(nights_lake: Lake) -> None:
    _a_month_ago(nights_lake)
    # Of gold alone: each view is planned when it is created.
    settings = nights_lake.settings(BRONZE_PATH="none/bronze", SILVER_PATH="none/silver")
    run_log.restore_version(settings.gold_path / "cartoes/movimento_flat", 0, 3)  # a commit that no run recorded
    create_tables(settings, last_runs(settings), nights_lake.spark)
    at = travel(settings, nights_lake.spark)
    assert at("gold/2") == ["gold_2.movimento_flat"]
    count = "SELECT count(*) FROM {}.movimento_flat"
    assert [nights_lake.spark.sql(count.format(name)).collect()[0][0] for name in ("gold", "gold_2")] == [16, 17]
    assert at("gold/99") == []
    with Report() as report:
        commands_history.restore(settings, "gold/2", report)
    assert nights_lake.csv == (nights_lake.folder / "2.csv").read_bytes()


@pytest.mark.jvm
def test_maintain_keeps_what_the_days_and_the_last_runs_need_and_says_what_it_freed(
    nights_lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, content = nights_lake.settings(), nights_lake.csv
    maintained(nights_lake)
    assert capsys.readouterr().out.count("0 files, 0.0 MB freed") == 4
    nights_lake.spark.sql("CREATE DATABASE IF NOT EXISTS gold")
    at = travel(settings, nights_lake.spark)
    assert at("gold/1") == ["gold_1.movimento_flat"]
    left = settings.bronze_path / "cartoes/conta/part-00009-left.parquet"
    half, scratch = (
        settings.export_path / ".movimento_flat.csv.99999999.x.half",
        settings.gold_path / ".export.99999999.x",
    )
    scratch.mkdir()
    for file in (left, half, scratch / "spill"):
        file.write_bytes(b"x" * 1_500_000)
    mine = settings.bronze_path / "cartoes/conta/notes.txt"
    mine.touch()
    _age(settings.layer_path, "3", days=40)
    maintained(nights_lake, HISTORY_DAYS="30")
    output = capsys.readouterr().out
    assert (
        "gold: 2 files, 1.5 MB freed" in output and "export: 1 file, 1.5 MB freed" in output
    )  # a version and the spill
    assert not left.exists() and not half.exists() and not scratch.exists() and mine.exists()
    assert at("gold/1") == [] and at("gold/3") != []
    assert "`make maintain` keeps the recent ones" in capsys.readouterr().out
    with pytest.raises(StorageFault, match="gold/1 cannot be brought back: `make maintain` keeps"), Report() as report:
        commands_history.restore(settings, "gold/1", report)
    with Report() as report:
        export(settings, (movimento_flat.TABLE,), report)
    assert nights_lake.csv == content
    for layer in LAYERS:
        run_log.check_tables(layer, settings.layer_path(layer), nights_lake.last(layer))


def test_maintain_removes_what_a_killed_spark_left_in_tmpdir(
    condominio_lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(condominio_lake.folder))
    left = condominio_lake.folder / ".lakehouse.99999999.x"
    (left / "blockmgr-1").mkdir(parents=True)
    (left / "blockmgr-1/shuffle_0_0_0.data").write_bytes(b"4" * 1_000_000)
    maintained(condominio_lake)
    assert f"temporary files in {condominio_lake.folder}: 1 file, 1.0 MB freed" in capsys.readouterr().out
    assert not left.exists()


def _age(layer_path, but: str, days: int) -> None:  # type: ignore[no-untyped-def]
    """Makes the runs of the lake older, but one: they are written anew, as they would have been then."""
    for layer in LAYERS:
        path = layer_path(layer)
        runs = run_log.read_runs(path)
        shutil.rmtree(path / run_log.RUNS)
        for run in runs:
            old = run if str(run.run) == but else replace(run, finished=run.finished - timedelta(days=days))
            run_log.record(path, old)


def test_maintain_merges_small_files_and_keeps_the_content(
    cli: Cli, keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in (300, 301):
        execute(keyed_lake.address, f"INSERT INTO movimento VALUES ({key}, 1, 'x', '2024-01-01', 1)")
        keyed_lake.run()
    settings, content = keyed_lake.settings(), keyed_lake.csv
    monkeypatch.setattr(layout, "MANY_SMALL_FILES", 2)
    before = {layer: run_log.last_run(settings.layer_path(layer), "cartoes") for layer in LAYERS}

    def read() -> None:
        for layer in LAYERS:
            assert run_log.last_run(settings.layer_path(layer), "cartoes")

    with meanwhile(read):
        maintained(keyed_lake)
    assert "gold: movimento_flat compacted, as gold/4" in capsys.readouterr().out
    for layer in LAYERS:
        was, now = before[layer], run_log.last_run(settings.layer_path(layer), "cartoes")
        assert was is not None and now is not None and (now.run, now.kind, now.content_of) == (4, "compaction", 3)
        assert [table.columns for table in now.tables] == [table.columns for table in was.tables]
        runs = settings.layer_path(layer) / run_log.RUNS
        assert len(delta.file_paths(runs, delta.version(runs) or 0)) == 2  # one, and the compaction's own row
    assert "`make" not in cli("status", env=connection_settings(keyed_lake.address)).stdout
    # Against what the runs recorded: that it is what upstream gives, another test proves.
    monkeypatch.setattr(with_lake, "compare_with_upstream", lambda *_: None)
    with Report() as report:
        reconcile(settings, ("cartoes",), report, keyed_lake.spark)
        export(settings, (movimento_flat.TABLE,), report)
    assert keyed_lake.csv == content
    texts = keyed_lake.log_texts()
    assert [word for word in PERSONAL if any(word in text for text in texts)] == []


def test_maintain_leaves_a_layer_without_a_complete_run_alone(lakehouse: Lake) -> None:
    fill(lakehouse)
    settings = lakehouse.run("bronze")
    shutil.rmtree(settings.bronze_path / run_log.RUNS)
    before = sorted(settings.bronze_path.rglob("*.parquet"))
    maintained(lakehouse)
    assert sorted(settings.bronze_path.rglob("*.parquet")) == before


def _a_month_ago(lakehouse: Lake) -> None:
    """Makes the files of the lake, and the commits of its tables, older than Delta by default keeps them."""
    month = 40 * 86_400
    for file in (lakehouse.folder / "lake").rglob("*"):
        if file.suffix == ".json":
            actions = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
            for line in actions:
                if "commitInfo" in line:
                    line["commitInfo"]["timestamp"] -= month * 1000
            file.write_text("".join(json.dumps(line) + "\n" for line in actions), "utf-8")
        if file.is_file():
            os.utime(file, (time.time() - month,) * 2)


def clock(moment: datetime) -> type[datetime]:
    """A clock that stands still."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return moment

    return Clock


def test_runs_and_versions_rise_although_the_clock_goes_back(lakehouse: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(lakehouse)
    settings = lakehouse.settings()
    today = datetime.now(UTC)
    for number, days in enumerate((0, -365, 365, 365, 0), 1):
        monkeypatch.setattr(lifecycle, "datetime", clock(today + timedelta(days=days)))
        execute(lakehouse.address, f"UPDATE movimento SET des_transacao = 'noite {number}' WHERE id = 1")
        lakehouse.run("bronze")
        last = lakehouse.last("bronze")
        assert (last.run, last.table("movimento").version) == (number, number - 1)
        texts = DeltaTable(settings.bronze_path / "cartoes/movimento").to_pyarrow_table()["des_transacao"].to_pylist()
        assert f"noite {number}" in texts and f"noite {number - 1}" not in texts
        maintained(lakehouse)
        run_log.check_tables("bronze", settings.bronze_path, last)


def test_maintain_touches_no_table_that_is_not_ours(nights_lake: Lake) -> None:
    theirs = nights_lake.settings().bronze_path / "cartoes/minha_analise"
    for mode in ("append", "overwrite"):
        write_deltalake(theirs, pa.table({"x": [1]}), mode=mode)
    before = sorted(theirs.rglob("*"))
    maintained(nights_lake)
    assert sorted(theirs.rglob("*")) == before


def test_maintain_keeps_the_run_before_the_last_however_old_it_is(nights_lake: Lake) -> None:
    """Loaded once in a quarter, what was replaced a minute ago can still come back."""
    settings = nights_lake.settings()
    _age(settings.layer_path, "3", days=90)
    maintained(nights_lake)
    with Report() as report:
        commands_history.restore(settings, "gold/2", report)
    assert nights_lake.csv == (nights_lake.folder / "2.csv").read_bytes()


def test_a_run_with_plain_card_numbers_is_restored_only_on_request_and_folders_stay_closed(nights_lake: Lake) -> None:
    settings = nights_lake.run("silver", "gold", CARD_NUMBERS="plain")
    assert b"4111111111111111" in nights_lake.csv
    with pytest.raises(UsageFault, match="gold/4 has plain card numbers"), Report() as report:
        commands_history.restore(nights_lake.settings(), "gold/4", report)
    for layer in ("silver", "gold"):
        last = nights_lake.last(layer)
        next_run = RunContext(replace(last, started=datetime.now(UTC)), last, frozenset())
        for table_run in last.tables:
            reason = reason_for_full_derived(nights_lake.settings(), next_run, last, table_run.name)
            assert reason == "LAKEHOUSE_CARD_NUMBERS changed"
    assert [settings.layer_path(layer).stat().st_mode & 0o777 for layer in LAYERS] == [0o700] * 3
    with Report() as report:
        commands_history.restore(nights_lake.settings(), "gold/3", report)
    assert b"4111111111111111" not in nights_lake.csv
    with Report() as report:
        commands_history.restore(settings, "gold/4", report)
    assert b"4111111111111111" in nights_lake.csv
