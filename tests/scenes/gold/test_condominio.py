"""The three reports on condominiums, made once more in plain Python from the files, and compared."""

import csv
import random
import re
import shutil
from collections import defaultdict
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from conf.settings import PROJECT
from pipelines.commands.status import status
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.gold import job as gold_job
from pipelines.lake import folders, run_log
from pipelines.spark import analysis
from tests.support.lake import NOWHERE, Lake
from tests.support.prepared import copied_files

REAL = PROJECT.parent / "shared/data/condominio"


def read(folder: Path, name: str) -> dict[int, list[str]]:
    """The lines of a file by their number; what the last column has too much is joined to it."""
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    width = len(header)
    return {number: [*row[: width - 1], ",".join(row[width - 1 :])] for number, row in enumerate(rows, 1)}


def oracle(folder: Path) -> tuple[dict[str, list[tuple[Any, ...]]], tuple[int, int]]:
    """The reports by their keys; rows whose resident lives elsewhere, and that came before their resident."""
    places, people = read(folder, "condominios"), read(folder, "moradores")
    properties, sales = read(folder, "imoveis"), read(folder, "transacoes")
    of_place: dict[tuple[int, str], list[Decimal]] = defaultdict(list)
    of_person: dict[int, list[Decimal]] = defaultdict(list)
    of_day: dict[tuple[date, str], list[Decimal]] = defaultdict(list)
    elsewhere = early = 0
    for home, person, day, amount in sales.values():
        kind, of_home, _ = properties[int(home)]
        _, of_resident, registered = people[int(person)]
        of_place[int(of_home), "imoveis"].append(Decimal(amount))
        of_place[int(of_resident), "moradores"].append(Decimal(amount))
        of_person[int(person)].append(Decimal(amount))
        of_day[date.fromisoformat(day), kind].append(Decimal(amount))
        elsewhere += of_home != of_resident
        early += date.fromisoformat(day) < date.fromisoformat(registered)
    reports: dict[str, list[tuple[Any, ...]]] = {
        "transacoes_por_condominio": [
            (key, name, *(f(of_place[key, whose]) for whose in ("imoveis", "moradores") for f in (len, sum)))
            for key, (name, _) in places.items()
        ],
        "transacoes_por_morador": [
            (key, name, len(of_person[key]), sum(of_person[key])) for key, (name, *_) in people.items()
        ],
        "transacoes_diarias_por_tipo_imovel": [
            (*key, len(amounts), sum(amounts)) for key, amounts in sorted(of_day.items())
        ],
    }
    return reports, (elsewhere, early)


def reported(lakehouse: Lake) -> tuple[dict[str, list[tuple[Any, ...]]], tuple[int, int]]:
    rows = {
        table.name: (table, lakehouse.table("gold", table.name)) for table in catalogue.tables_of("gold", "condominio")
    }
    rules = run_log.read_rules(lakehouse.settings().silver_path, lakehouse.last("silver"))
    failed = {rule.rule: rule.failed for rule in rules if rule.table == "transacoes"}
    return {
        name: [tuple(row.values()) for row in sorted(made, key=lambda row: tuple(row[key] for key in table.keys))]
        for name, (table, made) in rows.items()
    }, (
        failed["property and resident have the same condominium"],
        failed["the resident was registered before the transaction"],
    )


def made_up(lakehouse: Lake, dice: random.Random) -> None:
    """Few names and days; residents who buy elsewhere, and before they came; a place without any sale."""
    lines = {
        "condominios": ["nome,endereco", *(f"C{n % 2},Rua {n}, {n}" for n in range(1, 5))],
        "moradores": ["nome,condominio_id,data_registro"]
        + [f"{dice.choice(['Ana', 'Bia'])},{dice.randint(1, 3)},2024-01-0{dice.randint(1, 9)}" for _ in range(9)],
        "imoveis": ["tipo,condominio_id,valor"]
        + [f"{dice.choice(['Casa', 'Duplex'])},{dice.randint(1, 3)},{n}.10" for n in range(9)],
        "transacoes": ["imovel_id,morador_id,data_transacao,valor_transacao"]
        + [
            f"{dice.randint(1, 9)},{dice.randint(1, 8)},2024-01-0{dice.randint(1, 9)},{dice.choice(['0.10', '-5.05', '9999999999999.99'])}"
            for _ in range(60)
        ],
    }
    for at, (name, texts) in enumerate(lines.items()):
        lakehouse.drop(f"{name}.csv", "\n".join(texts), at)


@pytest.fixture(scope="module")
def sales(any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Made-up sales in all layers."""
    lake = Lake(tmp_path_factory.mktemp("sales"), NOWHERE, any_spark, "condominio")
    made_up(lake, random.Random(3))
    lake.run(QUALITY__MAX_QUARANTINED="0")
    return lake


@pytest.fixture
def copied_sales(sales: Lake, tmp_path: Path) -> Lake:
    return copied_files(sales, tmp_path)


def test_made_up_sales_are_reported_as_the_questions_say(sales: Lake) -> None:
    expected, (elsewhere, early) = oracle(sales.folder / "landing/condominio")
    by_place = expected["transacoes_por_condominio"]
    assert any(row[2:4] != row[4:] for row in by_place) and by_place[3][2:] == (0, 0, 0, 0)
    assert 0 < elsewhere < 60 and 0 < early < 60
    assert reported(sales) == (expected, (elsewhere, early))


def test_a_join_that_loses_or_multiplies_rows_ends_the_run_and_the_old_gold_stays(
    copied_sales: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, true = copied_sales.last("gold"), analysis.transformed
    for wrong, message in (
        (lambda rows: rows.where("morador_id <> 1"), "transacoes does not add up to the rows of silver.transacoes"),
        (
            lambda rows: rows.withColumn("valor", rows["valor"] * 2),
            "valor does not add up to the sum of valor_transacao",
        ),
        (lambda rows: rows.union(rows.where("transacoes = 0").limit(1)), r"a key \(morador_id\) comes twice"),
    ):

        def transformed(entry: Any, inputs: Any, wrong: Any = wrong) -> Any:
            made = true(entry, inputs)
            return wrong(made).select(made.columns) if entry.table.name == "transacoes_por_morador" else made

        monkeypatch.setattr(gold_job, "transformed", transformed)
        with pytest.raises(QualityFault, match=message):
            copied_sales.run("gold", full="transacoes_por_morador")
        assert copied_sales.last("gold") == before


@pytest.fixture
def two_csvs(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Two of the reports are CSV files, too; their names."""
    names, true = ("transacoes_por_condominio", "transacoes_por_morador"), catalogue.entries

    def entries(layer: str) -> tuple[catalogue.Entry, ...]:
        return tuple(
            replace(entry, table=replace(entry.table, csv=True)) if entry.table.name in names else entry
            for entry in true(layer)
        )

    monkeypatch.setattr(catalogue, "entries", entries)
    return names


def test_of_two_csvs_each_has_its_hash_and_is_written_only_when_its_table_changed(
    copied_sales: Lake, two_csvs: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    copied_sales.run("gold")
    files = [copied_sales.folder / f"export/{name}.csv" for name in two_csvs]
    written = [(file.stat().st_ino, folders.sha256(file)) for file in files]
    assert [copied_sales.last("gold").table(name).csv_sha256 for name in two_csvs] == [sha256 for _, sha256 in written]
    copied_sales.run("gold")
    assert [(file.stat().st_ino, folders.sha256(file)) for file in files] == written
    assert [copied_sales.last("gold").table(name).csv_sha256 for name in two_csvs] == [sha256 for _, sha256 in written]
    files[0].write_text("of somebody else")
    capsys.readouterr()
    with Report() as report:
        status(copied_sales.settings(), report)
    assert re.findall(r"(\w+)\.csv is not what gold/", capsys.readouterr().out) == [two_csvs[0]]
    copied_sales.run("gold")
    assert folders.sha256(files[0]) == written[0][1] and files[1].stat().st_ino == written[1][0]


@pytest.mark.skipif(not REAL.exists(), reason="the real files are not here")
def test_the_real_files_are_taken_whole_and_reported(condominio: Lake) -> None:
    shutil.copytree(REAL, condominio.folder / "landing/condominio")
    condominio.run(QUALITY__MAX_QUARANTINED="0")
    assert reported(condominio) == oracle(REAL)
    addresses = [row["endereco"] for row in condominio.table("silver", "condominios")]
    assert addresses[0] == "Rua das Palmeiras, 123, Centro" and len(addresses) == 3
