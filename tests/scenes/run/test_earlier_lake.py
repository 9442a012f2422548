"""A lake that an earlier release made: its records say in sentences and for whole runs what is data by table today."""

import tarfile
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from conf.settings import PROJECT, Postgres
from pipelines.commands.history import restore
from pipelines.commands.status import status
from pipelines.core.console import Report
from pipelines.core.names import HISTORY, LAYERS
from pipelines.lake import run_log
from tests.support.condominio import everything
from tests.support.lake import Lake
from tests.support.source import execute

# Two domains, two nights each; in the second a member was renamed, a movement deleted, a file of sales arrived.
LAKE = PROJECT / "tests/support/earlier_lake.tar.xz"
SOURCE = (
    "CREATE TABLE associado (id bigint PRIMARY KEY, nome text, sobrenome text, idade int, email text)",
    "CREATE TABLE conta (id bigint PRIMARY KEY, tipo text, data_criacao timestamp, id_associado bigint)",
    "CREATE TABLE cartao (id bigint PRIMARY KEY, num_cartao text, nom_impresso text, data_criacao timestamp, id_conta bigint, id_associado bigint)",
    "CREATE TABLE movimento (id bigint PRIMARY KEY, vlr_transacao numeric(10,2), des_transacao text, data_movimento timestamp, id_cartao bigint)",
    "INSERT INTO associado SELECT i, 'Ana ' || i, 'Souza', 20 + i, 'ana' || i || '@example.org' FROM generate_series(1, 4) i",
    "INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i FROM generate_series(1, 4) i",
    "INSERT INTO cartao SELECT i, '411111111111111' || i, 'ANA', '2020-01-02', i, i FROM generate_series(1, 4) i",
    """INSERT INTO movimento SELECT i, i + 0.25, 'compra ' || i, timestamp '2024-01-01' + i * interval '1 hour', 1 + i % 4
    FROM generate_series(1, 40) i""",
    "INSERT INTO movimento VALUES (41, 1, 'sem cartao', '2024-01-01', 99)",
    "UPDATE associado SET nome = 'Bia' WHERE id = 2",
    "DELETE FROM movimento WHERE id = 7",
)
LATE = "imovel_id,morador_id,data_transacao,valor_transacao\n2,1,2024-03-09,8.00\n"


@pytest.fixture
def earlier(tmp_path: Path, database: Postgres, spark: SparkSession) -> tuple[Lake, Lake]:
    """The cards and the condominiums of the earlier lake, and their source as it was then."""
    with tarfile.open(LAKE) as archive:
        archive.extractall(tmp_path, filter="data")
    for layer in LAYERS:
        (tmp_path / "lake" / layer / ".lock").touch()
    execute(database, *SOURCE)
    return Lake(tmp_path, database, spark), Lake(tmp_path, database, spark, "condominio")


def shown(lakehouse: Lake, capsys: pytest.CaptureFixture[str]) -> str:
    with Report() as report:
        status(lakehouse.settings(), report)
    return capsys.readouterr().out


def modes(lakehouse: Lake) -> dict[str, set[str]]:
    return {layer: {table.mode for table in lakehouse.last(layer).tables} for layer in LAYERS}


def test_records_of_an_earlier_release_are_read_with_what_each_table_did(earlier: tuple[Lake, Lake]) -> None:
    cards, files = earlier
    for lakehouse in earlier:
        first, second = run_log.read_runs(lakehouse.settings().silver_path, domain=lakehouse.domain)
        assert {table.mode for table in first.tables if not table.name.endswith(HISTORY)} == {"full"}
        expected = {"changed", "unchanged"} if lakehouse is cards else {"full", "unchanged"}
        assert {table.mode for table in second.tables} == expected
    assert cards.last("silver").table("conta").mode == "unchanged"
    assert cards.last("silver").table("associado").mode == "changed"
    assert cards.last("gold").table("movimento_flat").csv_sha256
    assert not any(table.csv_sha256 for table in files.last("gold").tables)


def test_a_lake_of_an_earlier_release_goes_on_for_three_nights_and_back(
    earlier: tuple[Lake, Lake], capsys: pytest.CaptureFixture[str]
) -> None:
    cards, files = earlier
    was, csv = [everything(lakehouse) for lakehouse in earlier], cards.csv
    names = {path: DeltaTable(path).metadata() for path in cards.folder.glob("lake/*/_*") if path.is_dir()}

    for lakehouse in earlier:
        lakehouse.run()
    assert [everything(lakehouse) for lakehouse in earlier] == was
    assert cards.csv == csv
    assert [modes(lakehouse)["gold"] for lakehouse in earlier] == [{"full"}, {"full"}]
    assert "this software changed" in cards.last("silver").table("conta").how

    execute(cards.address, "UPDATE associado SET nome = 'Eva' WHERE id = 3", "DELETE FROM movimento WHERE id = 8")
    files.drop("transacoes_3.csv", LATE, 30)
    for lakehouse in earlier:
        lakehouse.run()
    assert {table.name: table.mode for table in cards.last("silver").tables}["associado"] == "changed"
    assert b"Eva" in cards.csv and len(cards.csv.splitlines()) == len(csv.splitlines()) - 1
    assert len(files.table("silver", "transacoes")) == 4

    second = cards.csv
    for lakehouse in earlier:
        lakehouse.run()
        assert modes(lakehouse)["gold"] == {"unchanged"}
    assert cards.csv == second
    assert "is not what" not in shown(cards, capsys)

    for path, metadata in names.items():
        kept = DeltaTable(path).metadata()
        assert (kept.id, kept.name, kept.description) == (metadata.id, metadata.name, metadata.description)
    with Report() as report:
        restore(cards.settings(), "gold/1", report)
    assert b"Bia" not in cards.csv and b"Eva" not in cards.csv
    assert "is not what" not in shown(cards, capsys)
    with Report() as report:
        restore(cards.settings(), "gold/3", report)
    assert cards.csv == csv
    cards.run()
    assert cards.csv == second
