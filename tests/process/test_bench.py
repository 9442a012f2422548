"""The benchmark counts a time only if the result is right."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import rivals
from bench.__main__ import main
from bench.rivals import Way
from tests.support.folders import server_home

FEW = ["--sizes", "300", "--rounds", "1"]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The benchmark's server, its rivals' jars and its lakes: all tests of this file share them."""
    with server_home() as made:
        yield made


def measured(results: Path, name: str = "300") -> dict[str, Any]:
    """The only round of a result."""
    (measures,) = json.loads((results / f"{name}.json").read_text())["rounds"]
    return dict(measures)


def with_damage(folder: Path, code: str) -> list[Way]:
    """D, whose result is damaged afterwards by `code`; its LAKE is `lake`."""
    given = "import os, pathlib, deltalake; lake = pathlib.Path(os.environ['LAKE']); "
    return [
        replace(way, commands=(*way.commands, [sys.executable, "-c", given + code]))
        for way in rivals.ways(folder)
        if way.letter == "D"
    ]


@pytest.mark.long
def test_ours_and_duckdb_make_the_same_lake_and_csv(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*FEW, "--ways", "ours,D,F"], folder, tmp_path) == 0
    measures = measured(tmp_path)
    assert list(measures) == ["ours", "D", "F"]
    for letter in ("ours", "D"):
        assert 0 < measures[letter]["work"] < measures[letter]["seconds"]
        assert {"bronze", "silver", "gold_csv", "csv", "cpu", "peak", "bytes", "files"} <= set(measures[letter])
    assert measures["ours"]["start"] > 0  # else it is not aside
    assert {"copy", "parquet", "join_csv"} <= set(measures["F"]) and "same_files" in measures["ours"]
    assert str(folder) not in (tmp_path / "300.json").read_text()
    assert "ours to this, whole" in capsys.readouterr().out
    assert not list((folder / "lakes").iterdir())


@pytest.mark.long
def test_the_spark_jobs_make_the_same_lake_and_csv(folder: Path, tmp_path: Path) -> None:
    assert main([*FEW, "--ways", "E,T"], folder, tmp_path) == 0


@pytest.mark.long
def test_gold_is_right_after_each_night(folder: Path, tmp_path: Path) -> None:
    assert main(["--sizes", "", "--nights", "300", "--rounds", "1"], folder, tmp_path) == 0
    assert list(measured(tmp_path, "nights-300")) == ["whole", "nothing changed", "1 % newest", "1 % spread"]


DAMAGES = {  # by the code that does it, what is wrong then
    "deltalake.DeltaTable(lake / 'silver/conta').delete('id_conta = 1')": [
        f"silver.conta.{name}" for name in ("rows", "id_conta", "tipo", "data_criacao", "id_associado")
    ],
    "deltalake.DeltaTable(lake / 'gold/movimento_flat')"
    ".update(updates={'vlr_transacao_movimento': '0'}, predicate='_id_movimento = 7')": [
        "gold.movimento_flat.vlr_transacao_movimento"
    ],
    "(lake / 'csv/movimento_flat.csv').unlink()": ["csv: ValueError"],
}


def test_the_benchmark_gives_a_wrong_result_no_time_and_names_all_that_is_wrong(folder: Path, tmp_path: Path) -> None:
    assert main([*FEW, "--ways", "D"], folder, tmp_path, with_damage(folder, "; ".join(DAMAGES))) == 1
    assert measured(tmp_path) == {"D": {"wrong": [text for texts in DAMAGES.values() for text in texts]}}


def test_a_csv_in_another_order_is_wrong(folder: Path, tmp_path: Path) -> None:
    code = "import csv; file = lake / 'csv/movimento_flat.csv'; head, *rest = csv.reader(file.open(newline='')); "
    code += "csv.writer(file.open('w', newline=''), lineterminator='\\n').writerows([head, *sorted(rest)])"
    assert main([*FEW, "--ways", "D"], folder, tmp_path, with_damage(folder, code)) == 1
    (wrong,) = measured(tmp_path).values()
    assert "csv.vlr_transacao_movimento" in wrong["wrong"] and "csv.rows" not in wrong["wrong"]
