"""Files as a source: each is taken once, whole, in the order of arrival, and no line of it is lost."""

import json
import os
import socket
import time
import tracemalloc
from collections.abc import Callable
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
from pipelines.sources.files import delimited, landing
from pipelines.sources.files.landing import LandedFile, arrived, ingest, not_ingested

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


def files_of(folder: Path, table: Table = TABLE) -> list[LandedFile]:
    return arrived(folder, [table])[0]


def taken(tmp_path: Path, first: int = 1):  # type: ignore[no-untyped-def]
    with Report() as report:
        (record,), name, totals = ingest(files_of(tmp_path), Target(TABLE, tmp_path / "lake", 7), first, report)
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
    assert {(row["_source_file"], row["_batch"], row["nota"]) for row in rows} == {("venda1.csv", 7, None)}
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
        (
            "Dia; valor;x\n",
            "its header has no dia, but in other letters or with blanks, has no valor, but in other letters or with blanks",
        ),
        ("dia;valor;;;#4\n", "its header has a name twice"),
        ("dia;valor;\x1b[2J\n", "its header has a name that is not a line of at most 255 characters"),
        ("dia;valor;" + "x" * 256, "its header has a name that is not a line of at most 255 characters"),
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


@pytest.mark.parametrize(
    ("header", "row", "extra"),
    [
        ("valor;nota;dia", "1;x;2024-01-31", None),
        ("dia;valor;nota;", "2024-01-31;1;x;", {"": None}),
        ("dia;valor;nota;;;", "2024-01-31;1;x;;y;", {"": None, "#5": "y", "#6": None}),
        (";dia;;valor;nota", "7;2024-01-31;;1;x", {"": "7", "#3": None}),
        ("dia;valor;nota;Nota; nota", "2024-01-31;1;x;y;z", {"Nota": "y", " nota": "z"}),
        ('\ufeff"dia";"valor";"nota"', '"2024-01-31";"1";"x"', None),
    ],
)
def test_columns_are_found_by_name_and_those_of_no_contract_are_kept(
    tmp_path: Path, header: str, row: str, extra: dict[str, str | None] | None
) -> None:
    drop(tmp_path, "venda.csv", f"{header}\n{row}\n")
    record, (line,), _ = taken(tmp_path)
    assert (line["dia"], line["valor"], line["nota"]) == (date(2024, 1, 31), Decimal(1), "x")
    assert json.loads(line["_extra"] or "null") == extra and record.extras == tuple(extra or ())


@pytest.mark.parametrize(
    ("text", "rescued"),
    [
        ("dia;nota\n2024-01-01;a; b\n", {"_rest": "nota"}),
        ("nota;dia\na; b;2024-01-01\n", {"_why": "it has 3 fields, not 2"}),
        ("dia;nota;x\n2024-01-01;a; b;c\n", {"_why": "it has 4 fields, not 3"}),
    ],
)
def test_the_last_column_of_the_contract_takes_the_rest_or_none_does(
    tmp_path: Path, text: str, rescued: dict[str, str]
) -> None:
    drop(tmp_path, "venda.csv", text)
    columns = tuple(column for column in TABLE.columns if column.name != "valor")
    table = replace(TABLE, columns=columns, files=Files("venda*.csv", Csv(delimiter=";", rest=True)))
    _, name, _ = ingest(files_of(tmp_path, table), Target(table, tmp_path / "lake", 7), 1, Report())
    (row,) = pq.read_table(tmp_path / "lake" / name).to_pylist()
    assert rescued.items() <= json.loads(row["_rescued"]).items() and row["nota"] in ("a; b", None)


# Files that could make a step look at all of a line for each of its parts, or at all of a header for each line.
WORST: dict[str, Callable[[int], str]] = {
    "line ends": lambda n: "dia,valor\n" + "2024-01-01,1\n" * (n // 2),
    "names": lambda n: ",".join(f"c{i}" for i in range(n)) + "\r\n",
    "same names": lambda n: "dia," * n + "\r\n",
    "names in quotes": lambda n: ",".join('"c"' for _ in range(n)) + "\r\n",
    "quotes": lambda n: "dia,valor\r\n" + '"' * (n + 1) + "\r\n" + '"' + '""' * n + "\r\n",
    "open quotes": lambda n: "dia,valor\r\n" + ',"x' * n + "\r\n",
    "ends": lambda n: "dia,valor\r\n" + "\r" * n + "\r\n" + "\n" * n,
    "short lines": lambda n: (
        "dia,valor" + "".join(f",c{i}" for i in range(min(n // 20, 9_000))) + "\r\n" + "dia\r\n" * (n // 10)
    ),
    "short headers": lambda n: (
        "dia,valor" + "".join(f",c{i}" for i in range(min(n // 20, 9_000))) + "\r\n" + "dia,valor\r\n" * (n // 10)
    ),
    "other headers": lambda n: "dia,valor\r\nvalor,dia\r\n" + "dia,1\r\n" * (n // 10),
    "no text": lambda n: "dia,valor\r\n" + "\udcff" * n + "\r\n",
    "digits": lambda n: "dia,valor,x\r\n2024-01-01," + "0" * n + ",\r\n",
}


def seconds(tmp_path: Path, kind: str, size: int) -> float:
    """The time that this process takes for a file of so many parts."""
    (tmp_path / "venda.csv").write_bytes(WORST[kind](size).encode(errors="surrogateescape"))
    table = replace(TABLE, files=Files("venda*.csv", Csv(line_end="\r\n")))
    started = time.process_time()
    ingest(files_of(tmp_path, table), Target(table, tmp_path / "lake", 7), 1, Report())
    return time.process_time() - started


@pytest.mark.parametrize("kind", WORST)
def test_a_file_takes_time_by_its_size_whatever_it_has(tmp_path: Path, kind: str) -> None:
    """Four times the parts may take ten times as long, not sixteen times as what is quadratic; nobody waits for less
    than half a second."""
    small = min(seconds(tmp_path, kind, 25_000) for _ in range(2))
    assert seconds(tmp_path, kind, 100_000) < max(10 * small, 0.5)


@pytest.mark.long
@pytest.mark.parametrize("kind", WORST)
def test_a_large_file_takes_time_by_its_size_whatever_it_has(tmp_path: Path, kind: str) -> None:
    """A million parts; lines of tens of megabytes."""
    assert seconds(tmp_path, kind, 1_000_000) < max(12 * seconds(tmp_path, kind, 200_000), 1)


@pytest.mark.long
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_of_100_megabytes_is_read_at_the_pace_of_others(tmp_path: Path, end: str) -> None:
    """Whether it is one, or its ends are others than the contract's."""
    line = "2024-01-01;1;" + "x" * 87 + "\n"
    path = drop(tmp_path, "venda.csv", f"dia;valor;nota{end}" + line * 1_000_000)
    table = replace(TABLE, files=Files("venda*.csv", Csv(delimiter=";", line_end="\r\n")))
    started = time.process_time()
    (record,), _, _ = ingest(files_of(tmp_path, table), Target(table, tmp_path / "lake", 7), 1, Report())
    assert time.process_time() - started < 60 and path.stat().st_size > 10**8
    assert record.lines == record.bad == (1_000_001 if end == "\n" else 1)


def test_an_empty_file_counts_as_not_yet_delivered(tmp_path: Path) -> None:
    path = drop(tmp_path, "venda.csv", "")
    assert files_of(tmp_path) == []
    path.write_text("dia;valor\n")
    assert [file.name for file in files_of(tmp_path)] == ["venda.csv"]


@pytest.mark.parametrize("batches", [2, 1000])
def test_the_rows_of_many_files_go_to_one_data_file_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr(landing, "JOIN_BATCHES", batches)
    for number in range(5):
        drop(tmp_path, f"venda{number}.csv", f"dia;valor\n2024-01-0{number + 1};{number},5\n", at=10 - number)
    with Report() as report:
        records, name, totals = ingest(files_of(tmp_path), Target(TABLE, tmp_path / "lake", 7), 1, report)
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
    assert [file.name for file in files_of(tmp_path)] == ["venda_c.csv", "venda_a.csv", "venda_b.csv"]


def test_a_file_is_taken_once_and_with_other_content_refused(tmp_path: Path) -> None:
    path = drop(tmp_path, "venda.csv", "dia;valor\n2024-01-01;1\n")
    record, _, _ = taken(tmp_path)
    files = files_of(tmp_path)
    assert not_ingested(files, []) == (files, {}) and not_ingested(files, [record]) == ([], {})
    path.write_text("dia;valor\n2024-01-01;2\n")
    (file,) = files
    assert "was taken by run 7 and has other content now" in not_ingested(files, [record])[1][file]
    assert not_ingested(files, [record], thorough=False) == ([], {}), "it has the size and the time that it had"
    os.utime(path, (5, 5))
    assert not_ingested(files_of(tmp_path), [record], thorough=False)[1]
    free = replace(TABLE, files=Files("venda*.csv", replaced=True), columns=TABLE.columns[1:])
    assert [file.name for file in not_ingested(files_of(tmp_path, free), [record])[0]] == ["venda.csv"]


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


def test_what_is_no_file_of_a_table_is_left_alone_and_reported(tmp_path: Path) -> None:
    drop(tmp_path, "venda1.csv", "dia;valor")
    drop(tmp_path, "Venda2.CSV", "dia;valor")
    drop(tmp_path, "venda3.csv", "")
    (tmp_path / os.fsdecode(b"venda_\xe9.csv")).write_text("dia;valor")
    (tmp_path / "venda\n4\x1b.csv").write_text("dia;valor")
    (tmp_path / "venda_loop.csv").symlink_to("venda_loop.csv")
    (tmp_path / "venda_passwd.csv").symlink_to("/etc/passwd")
    (tmp_path / "venda_null.csv").symlink_to("/dev/null")
    (tmp_path / "venda_folder.csv").mkdir()
    (tmp_path / "venda_linked.csv").symlink_to(tmp_path / "venda_folder.csv")
    os.mkfifo(tmp_path / "venda_fifo.csv")  # nobody writes: who opens it waits
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "venda_socket.csv"))
    (tmp_path / "secret").write_text("dia;valor\n")
    (tmp_path / "secret").chmod(0o640)
    (tmp_path / "venda_other_name.csv").hardlink_to(tmp_path / "secret")
    files, others = arrived(tmp_path, [TABLE])
    assert [file.name for file in files] == ["venda1.csv"]
    kinds = ("fifo", "folder", "linked", "loop", "null", "passwd", "socket")
    assert {why: sorted(names) for why, names in others.items()} == {
        landing.NO_TABLE: ["Venda2.CSV", "secret"],
        landing.NO_NAME: ["venda\n4\x1b.csv", "venda_\udce9.csv"],
        landing.NO_FILE: [f"venda_{kind}.csv" for kind in kinds],
        landing.MANY_NAMES: ["venda_other_name.csv"],
    }
    (tmp_path / "secret").chmod(0o644)
    assert len(files_of(tmp_path)) == 2, "everybody may read it"
    assert arrived(tmp_path / "none", [TABLE]) == ([], {})


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "gone", "another name", "behind a link"])
def test_what_takes_a_files_name_after_the_folder_was_listed_is_not_read(tmp_path: Path, kind: str) -> None:
    """Whoever may write into the landing folder can put something else there at any moment."""
    folder = tmp_path / "landing"
    folder.mkdir()
    path, secret = drop(folder, "venda.csv", "dia;valor\n2024-01-01;1\n"), drop(tmp_path, "venda.csv", "dia;valor\n")
    secret.chmod(0o600)
    (file,) = files_of(folder)
    path.unlink()
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "another name":
        path.hardlink_to(secret)
    elif kind == "behind a link":
        folder.rmdir()
        folder.symlink_to(tmp_path)
    for read in (
        lambda: landing.hashed(file),
        lambda: ingest([file], Target(TABLE, tmp_path / "lake", 7), 1, Report()),
    ):
        with pytest.raises(SourceFault, match=r"venda\.csv"):
            read()


def test_only_the_landing_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real/teste").mkdir(parents=True)
    drop(tmp_path / "real/teste", "venda.csv", "dia;valor\n")
    (tmp_path / "landing").symlink_to(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real/teste")
    (file,) = files_of(tmp_path / "landing/teste")
    assert landing.hashed(file)
    with pytest.raises(SourceFault, match="link is a link or lies behind one; put there what it leads to"):
        files_of(tmp_path / "link")


@pytest.mark.parametrize(("seconds", "year"), [(10**12, 9999), (-(10**12), 1), (-1, 1969)])
def test_a_file_of_any_time_is_taken(seconds: int, year: int) -> None:
    assert landing._moment(seconds).year == year


def test_a_file_with_too_many_columns_is_kept_as_its_lines(tmp_path: Path) -> None:
    drop(tmp_path, "venda.csv", "dia;valor" + ";x" * 100_000 + "\n" + "1;2" * 50_000 + "\n")
    record, rows, _ = taken(tmp_path)
    assert record.why == "its header has 100,002 columns, more than 10,000" and record.bad == record.lines == 2
    assert json.loads(rows[1]["_rescued"])["_line"] == "1;2" * 50_000


@pytest.mark.parametrize("end", [b"\n", b"\x00\xd8\n\x00"])
def test_bytes_that_are_no_utf_16_make_one_line_bad(tmp_path: Path, end: bytes) -> None:
    (tmp_path / "venda.csv").write_bytes("dia;valor\n2024-01-01;1\n".encode("utf-16") + end)
    table = replace(TABLE, files=Files("venda*.csv", Csv(delimiter=";", encoding="utf-16")))
    (record,), name, _ = ingest(files_of(tmp_path, table), Target(table, tmp_path / "lake", 7), 1, Report())
    rows = pq.read_table(tmp_path / "lake" / name).to_pylist()
    assert (record.lines, record.bad, rows[0]["valor"], rows[0]["_rescued"]) == (2, 1, Decimal("1"), None)
    assert json.loads(rows[1]["_rescued"]) == {
        "_line": "".join(f"\\x{byte:02x}" for byte in end.removesuffix(b"\n\0")),
        "_why": "it has bytes that are no utf-16",
        "_at": "venda.csv, 3",
    }


def test_a_shift_of_iso_2022_that_does_not_end_is_refused_by_name(tmp_path: Path) -> None:
    """Python's decoder gives up."""
    drop(tmp_path, "venda.csv", "dia;valor\n\x1b((((((((((")
    table = replace(TABLE, files=Files("venda*.csv", Csv(delimiter=";", encoding="iso2022_jp")))
    with pytest.raises(SourceFault, match=r"venda\.csv is not text in the encoding that its contract names"):
        ingest(files_of(tmp_path, table), Target(table, tmp_path / "lake", 7), 1, Report())


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_folder_that_we_may_not_read_is_an_error_that_says_so(tmp_path: Path) -> None:
    drop(tmp_path, "venda.csv", "dia;valor\n")
    tmp_path.chmod(0o700)
    os.seteuid(12345)
    try:
        with pytest.raises(SourceFault, match="Permission denied; correct its rights"):
            files_of(tmp_path)
    finally:
        os.seteuid(0)


def test_a_file_that_is_a_line_without_end_needs_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LINE_LIMIT", 2**20)
    path = drop(tmp_path, "venda.csv", "")
    os.truncate(path, 60 * 2**20)  # zeros that take no space
    tracemalloc.start()
    record, rows, _ = taken(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 2**20
    assert (record.lines, record.why) == (1, "its header: it has more than 1,048,576 characters")
    assert json.loads(rows[0]["_rescued"])["_line"] == "\0" * 1000


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
