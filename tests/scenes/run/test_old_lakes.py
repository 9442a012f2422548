"""Lakes that earlier software made: today's software goes on with them, keeps their history, and goes back in it."""

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from conf.settings import PROJECT, Postgres
from pipelines.commands import history
from pipelines.commands.reconcile.reconcile import reconcile
from pipelines.commands.status import status
from pipelines.core.console import Report
from pipelines.core.names import DELETED, HISTORY, LAYERS
from pipelines.lake import run_log
from tests.support import old_lake
from tests.support.condominio import SALES, everything
from tests.support.lake import Lake
from tests.support.readers import misread
from tests.support.source import execute

# `make test` has the lake of an earlier release whose records differ most from today's; `make test-long` all.
SHORT = ("1dbd91b",)
LAKES = [
    pytest.param(file, id=file.stem[:-4], marks=() if file.stem[:-4] in SHORT else pytest.mark.long)
    for file in sorted((PROJECT / "tests/lakes").glob("*.tar.xz"))
]


@pytest.fixture
def source(database: Postgres) -> Postgres:
    old_lake.fill(database)
    return database


def opened(file: Path, folder: Path, source: Postgres, spark: SparkSession) -> list[Lake]:
    """The domains of a lake, cards first."""
    old_lake.unpack(file, folder)
    lakes = [Lake(folder, source, spark, domain) for domain in ("cartoes", "condominio")]
    return [lake for lake in lakes if run_log.last_run(lake.settings().gold_path, lake.domain)]


def shown(lakehouse: Lake, capsys: pytest.CaptureFixture[str]) -> str:
    with Report() as report:
        status(lakehouse.settings(), report)
    return capsys.readouterr().out


def restore(lakehouse: Lake, run: int) -> None:
    with Report() as report:
        history.restore(lakehouse.settings(), f"gold/{run}", report)


def modes(lakehouse: Lake) -> dict[str, set[str]]:
    return {layer: {table.mode for table in lakehouse.last(layer).tables} for layer in LAYERS}


def test_records_of_an_earlier_release_are_read_with_what_each_table_did(
    tmp_path: Path, source: Postgres, spark: SparkSession
) -> None:
    cards, files = opened(PROJECT / "tests/lakes/1dbd91b.tar.xz", tmp_path, source, spark)
    for lakehouse in (cards, files):
        first, second, *_ = run_log.read_runs(lakehouse.settings().silver_path, domain=lakehouse.domain)
        assert {table.mode for table in first.tables if not table.name.endswith(HISTORY)} == {"full"}
        expected = {"changed", "unchanged"} if lakehouse is cards else {"full", "unchanged"}
        assert {table.mode for table in second.tables} == expected
    second = run_log.read_runs(cards.settings().silver_path, domain="cartoes")[1]
    assert second.table("conta").mode == "unchanged"
    assert second.table("associado").mode == "changed"
    assert cards.last("gold").table("movimento_flat").csv_sha256
    assert not any(table.csv_sha256 for table in files.last("gold").tables)


@pytest.mark.parametrize("file", LAKES)
def test_a_lake_of_earlier_software_goes_on_for_three_nights_and_back(
    file: Path, tmp_path: Path, source: Postgres, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    lakes = opened(file, tmp_path, source, spark)
    cards, *others = lakes
    csv, last = cards.csv, cards.last("silver")
    marked = any(column.name == DELETED for column in cards.last("bronze").tables[0].columns)
    was = [everything(lakehouse) for lakehouse in lakes if last.tables[0].columns]
    ids = {path: DeltaTable(path).metadata().id for path in tmp_path.glob("lake/*/_*") if path.is_dir()}
    before = [run_log.read_runs(lakehouse.settings().gold_path, domain=lakehouse.domain) for lakehouse in lakes]

    for lakehouse in lakes:
        lakehouse.run()
    assert [everything(lakehouse) for lakehouse in lakes][: len(was)] == was
    assert cards.csv == csv
    assert all(modes(lakehouse)["gold"] == {"full"} for lakehouse in lakes)
    why = "this software changed" if last.software else "LAKEHOUSE_FULL_DAYS=7 have passed"
    assert cards.last("silver").table("conta").how == f"full: {why}"
    if marked:
        assert cards.last("bronze").table("conta").how == "full: an earlier release kept superseded rows in its files"
        assert "an earlier release marked rows as deleted; this column goes" in capsys.readouterr().err or not others
    for lakehouse in lakes:
        assert misread(lakehouse, with_log=False) == []

    execute(cards.address, "UPDATE associado SET nome = 'Eva' WHERE id = 3", "DELETE FROM movimento WHERE id = 8")
    for files in others:
        files.drop("transacoes_4.csv", f"{SALES}2,1,2024-03-09,8.00\n", 50)
    for lakehouse in lakes:
        lakehouse.run()
    assert cards.last("silver").table("associado").mode == "changed"
    assert b"Eva" in cards.csv and len(cards.csv.splitlines()) == len(csv.splitlines()) - 1
    for files in others:
        assert len(files.table("silver", "transacoes")) == 5

    changed = cards.csv
    for lakehouse in lakes:
        lakehouse.run()
        assert modes(lakehouse)["gold"] == {"unchanged"}
    assert cards.csv == changed
    assert "is not what" not in shown(cards, capsys)

    for path in tmp_path.glob("lake/*/_*"):
        if path.is_dir():
            metadata = DeltaTable(path).metadata()
            assert (metadata.name, metadata.id) == (path.name, ids.get(path, metadata.id))
            assert metadata.configuration["delta.logRetentionDuration"] == "interval 3650 days"
    for lakehouse, runs in zip(lakes, before, strict=True):
        assert run_log.read_runs(lakehouse.settings().gold_path, domain=lakehouse.domain)[: len(runs)] == runs

    restore(cards, before[0][0].run)
    assert b"Bela" not in cards.csv and b"Eva" not in cards.csv
    assert "is not what" not in shown(cards, capsys)
    flat = DeltaTable(cards.settings().gold_path / "cartoes/movimento_flat")
    assert pa.table(flat.load_cdf(starting_version=flat.version()).read_all()).num_rows
    restore(cards, before[0][-1].run)
    assert cards.csv == csv
    cards.run()
    assert cards.csv == changed
    with Report() as report:
        reconcile(cards.settings(), tuple(lakehouse.domain for lakehouse in lakes), report, spark)


@pytest.mark.long
def test_a_lake_of_this_software_is_kept_by_one_command(tmp_path: Path, source: Postgres, spark: SparkSession) -> None:
    old_lake.make(tmp_path / "today.tar.xz", PROJECT)
    assert (tmp_path / "today.tar.xz").stat().st_size < 100_000
    for lakehouse in opened(tmp_path / "today.tar.xz", tmp_path, source, spark):
        assert [run.kind for run in run_log.read_runs(lakehouse.settings().gold_path, domain=lakehouse.domain)] == [
            "run"
        ] * 4
