"""Files as a source: each is taken once, whole, in the order of arrival, and no line of it is lost."""

import json
import os
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conf.contract import Column, Csv, Files, Table
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault
from pipelines.lake import delta
from pipelines.lake.changes import Target
from pipelines.sources.files import landing
from pipelines.sources.files.landing import arrived, ingest, not_ingested

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
    with Report() as report:
        (record,), name, totals = ingest(arrived(tmp_path, [TABLE]), Target(TABLE, tmp_path / "lake", 7), first, report)
    return record, pq.read_table(tmp_path / "lake" / name).to_pylist(), totals


def test_every_line_of_a_file_arrives_with_its_place_bad_ones_as_their_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "READ_ROWS", 2)
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
        {"_line": "kaputt", "_why": "it has 1 fields, not 3", "_at": "venda1.csv, 4"},
        None,
    ]
    assert [json.loads(row["_extra"] or "null") for row in rows] == [
        {"cor": "azul"},
        {"cor": None},
        None,
        {"cor": None},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n", "it has no header"),
        ("valor;nota\n1;x;y\n", "its header has no dia"),
        ("dia;valor;dia\n2024-01-31;1;1\n", "its header has dia twice"),
        ('"dia;valor\n2024-01-31;1\n', "its header: a quoted field does not end"),
        ("\ufeffdia,valor\n", "its header has no dia, has no valor"),
    ],
)
def test_each_line_of_a_file_with_another_header_is_kept_as_its_text(tmp_path: Path, text: str, message: str) -> None:
    drop(tmp_path, "venda.csv", text)
    record, rows, totals = taken(tmp_path, first=3)
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if line]
    assert (record.lines, record.bad, record.why, totals) == (len(lines), len(lines), message, {"valor": 0})
    assert [json.loads(row["_rescued"]) for row in rows] == [
        {"_line": line, "_why": message, "_at": f"venda.csv, {row['_source_row']}"}
        for line, row in zip(lines, rows, strict=True)
    ]
    assert [(row["id"], row["_source_row"]) for row in rows] == [(3 + at, 1 + at) for at in range(len(lines))]


def test_an_empty_file_counts_as_not_yet_delivered(tmp_path: Path) -> None:
    path = drop(tmp_path, "venda.csv", "")
    assert arrived(tmp_path, [TABLE]) == []
    path.write_text("dia;valor\n")
    assert [file.name for file in arrived(tmp_path, [TABLE])] == ["venda.csv"]


def test_the_rows_of_many_files_go_to_one_data_file_in_order(tmp_path: Path) -> None:
    for number in range(5):
        drop(tmp_path, f"venda{number}.csv", f"dia;valor\n2024-01-0{number + 1};{number},5\n", at=10 - number)
    with Report() as report:
        records, name, totals = ingest(arrived(tmp_path, [TABLE]), Target(TABLE, tmp_path / "lake", 7), 1, report)
    rows = pq.read_table(tmp_path / "lake" / name).to_pylist()
    assert [(row["id"], row["_source_file"], row["dia"].day) for row in rows] == [
        (number, f"venda{5 - number}.csv", 6 - number) for number in range(1, 6)
    ]
    assert [record.name for record in records] == [row["_source_file"] for row in rows] and totals == {
        "valor": Decimal("12.5")
    }
    assert pq.read_metadata(tmp_path / "lake" / name).num_row_groups == 1


def test_files_come_in_the_order_of_their_last_change_then_of_their_names(tmp_path: Path) -> None:
    for name, at in (("venda_b.csv", 5), ("venda_a.csv", 5), ("venda_c.csv", 4), (".venda_d.csv", 1), ("outro.csv", 1)):
        drop(tmp_path, name, "dia;valor", at)
    assert [file.name for file in arrived(tmp_path, [TABLE])] == ["venda_c.csv", "venda_a.csv", "venda_b.csv"]


def test_a_file_is_taken_once_and_with_other_content_refused(tmp_path: Path) -> None:
    path = drop(tmp_path, "venda.csv", "dia;valor\n2024-01-01;1\n")
    record, _, _ = taken(tmp_path)
    files = arrived(tmp_path, [TABLE])
    assert not_ingested(files, []) == (files, {}) and not_ingested(files, [record]) == ([], {})
    path.write_text("dia;valor\n2024-01-01;2\n")
    (file,) = files
    assert "was taken by run 7 and has other content now" in not_ingested(files, [record])[1][file]
    assert not_ingested(files, [record], thorough=False) == ([], {}), "it has the size and the time that it had"
    os.utime(path, (5, 5))
    assert not_ingested(arrived(tmp_path, [TABLE]), [record], thorough=False)[1]
    free = replace(TABLE, files=Files("venda*.csv", replaced=True), columns=TABLE.columns[1:])
    assert [file.name for file in not_ingested(arrived(tmp_path, [free]), [record])[0]] == ["venda.csv"]


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
    delta.sweep(tmp_path / "lake", 7)  # as the run does that fails
    assert list((tmp_path / "lake").glob("*.parquet")) == []


def test_files_that_match_no_table_are_left_alone_and_reported(tmp_path: Path) -> None:
    drop(tmp_path, "venda1.csv", "dia;valor")
    drop(tmp_path, "Venda2.CSV", "dia;valor")
    drop(tmp_path, "venda3.csv", "")
    (tmp_path / os.fsdecode(b"venda_\xe9.csv")).write_text("dia;valor")
    (tmp_path / "venda_loop.csv").symlink_to("venda_loop.csv")
    (tmp_path / "venda_folder.csv").mkdir()
    files = arrived(tmp_path, [TABLE])
    assert [file.name for file in files] == ["venda1.csv"]
    others = ["Venda2.CSV", "venda_\\udce9.csv", "venda_folder.csv", "venda_loop.csv"]
    assert landing.unmatched(tmp_path, files) == others and landing.unmatched(tmp_path / "none", []) == []


def test_a_file_without_a_header_does_not_show_the_row_in_its_place(tmp_path: Path) -> None:
    drop(tmp_path, "venda.csv", "Maria Souza;Maria Souza;2024-01-01\n")
    assert taken(tmp_path)[0].why == "its header has a name twice, has no dia, has no valor"


def test_a_line_ending_that_the_contract_does_not_name_is_reported_as_such(tmp_path: Path) -> None:
    drop(tmp_path, "venda.csv", "dia;valor\r\n2024-01-01;1\r\n")
    record, rows, _ = taken(tmp_path)
    assert (record.why, len(rows)) == ("its lines end with CR LF, the contract says LF", 2)


def test_a_file_for_two_tables_is_refused(tmp_path: Path) -> None:
    drop(tmp_path, "venda.csv", "dia;valor")
    with pytest.raises(ContractFault, match="for both venda and venda"):
        arrived(tmp_path, [TABLE, TABLE])
