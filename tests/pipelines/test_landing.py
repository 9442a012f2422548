"""Files as a source: each is taken once, whole, in the order of arrival, and no line of it is lost."""

import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conf.contract import Column, Csv, Files, Table
from pipelines import landing
from pipelines.errors import ContractFault, SourceFault
from pipelines.landing import arrived, new, take

TABLE = Table(
    "bronze.teste.venda",
    "Sales. One row per sale.",
    (
        Column("id", "bigint", "Sale id", key=True, serial=True),
        Column("dia", "date", "Day"),
        Column("valor", "decimal(10,2)", "Amount", nullable=True),
        Column("nota", "string", "Note", nullable=True, optional=True),
    ),
    files=Files("venda*.csv", Csv(delimiter=";", decimal_comma=("valor",))),
)


def drop(folder: Path, name: str, text: str, at: int = 0) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    os.utime(path, ns=(at * 10**9, at * 10**9))
    return path


def taken(tmp_path: Path, first: int = 1):  # type: ignore[no-untyped-def]
    (file,) = arrived(tmp_path, [TABLE])
    (tmp_path / "lake").mkdir()
    record, name, totals = take(file, tmp_path / "lake", 7, first)
    return record, pq.read_table(tmp_path / "lake" / name).to_pylist(), totals


def test_every_line_of_a_file_arrives_with_its_place_bad_ones_as_their_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "BATCH", 2)
    path = drop(tmp_path, "venda1.csv", "valor;dia;cor\n1,5;2024-01-31;azul\n2,345;x;\nkaputt\n-0,25;2024-02-01;\n")
    record, rows, totals = taken(tmp_path, first=40)
    assert (record.lines, record.bad, record.bytes) == (4, 1, path.stat().st_size)
    assert totals == {"valor": Decimal("1.25")}
    assert [row["id"] for row in rows] == [40, 41, 42, 43]
    assert [row["_source_row"] for row in rows] == [2, 3, 4, 5]
    assert {(row["_source_file"], row["_batch"], row["_deleted"], row["nota"]) for row in rows} == {
        ("venda1.csv", 7, False, None)
    }
    assert [(row["dia"], row["valor"]) for row in rows] == [
        (date(2024, 1, 31), Decimal("1.50")),
        (None, None),
        (None, None),
        (date(2024, 2, 1), Decimal("-0.25")),
    ]
    rescued = [json.loads(row["_rescued"] or "null") for row in rows]
    assert rescued == [
        None,
        {"valor": "2,345", "dia": "x"},
        {"_line": "kaputt", "_why": "it has 1 fields, not 3"},
        None,
    ]
    assert [json.loads(row["_extra"] or "null") for row in rows] == [
        {"cor": "azul"},
        {"cor": None},
        None,
        {"cor": None},
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("valor;nota\n", "it has no column dia"),
        ("dia;valor;dia\n", "it has column dia twice"),
        ('"dia;valor\n', "its header: a quoted field does not end"),
    ],
)
def test_a_file_with_another_header_is_refused_whole(tmp_path: Path, text: str, said: str) -> None:
    drop(tmp_path, "venda.csv", text)
    with pytest.raises(ContractFault, match=rf"venda\.csv: {said}"):
        taken(tmp_path)
    assert list((tmp_path / "lake").iterdir()) == []


def test_files_come_in_the_order_of_their_last_change_then_of_their_names(tmp_path: Path) -> None:
    for name, at in (("venda_b.csv", 5), ("venda_a.csv", 5), ("venda_c.csv", 4), (".venda_d.csv", 1), ("outro.csv", 1)):
        drop(tmp_path, name, "", at)
    assert [file.name for file in arrived(tmp_path, [TABLE])] == ["venda_c.csv", "venda_a.csv", "venda_b.csv"]


def test_a_file_is_taken_once_and_with_other_content_refused(tmp_path: Path) -> None:
    path = drop(tmp_path, "venda.csv", "dia;valor\n2024-01-01;1\n")
    record, _, _ = taken(tmp_path)
    files = arrived(tmp_path, [TABLE])
    assert new(files, []) == files and new(files, [record]) == []
    path.write_text("dia;valor\n2024-01-01;2\n")
    with pytest.raises(SourceFault, match="was taken by run 7 and has other content now"):
        new(files, [record])


def test_a_file_that_changes_while_it_is_read_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = drop(tmp_path, "venda.csv", "dia;valor\n2024-01-01;1\n")
    real = landing._shape

    def growing(*arguments):  # type: ignore[no-untyped-def]
        with path.open("a") as file:
            file.write("2024-01-01;2\n")
        return real(*arguments)

    monkeypatch.setattr(landing, "_shape", growing)
    with pytest.raises(SourceFault, match="changed while it was read"):
        taken(tmp_path)
    assert list((tmp_path / "lake").iterdir()) == []


def test_a_file_for_two_tables_is_refused(tmp_path: Path) -> None:
    drop(tmp_path, "venda.csv", "")
    with pytest.raises(ContractFault, match="for both venda and venda"):
        arrived(tmp_path, [TABLE, TABLE])
