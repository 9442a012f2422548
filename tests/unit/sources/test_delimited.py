"""Delimited text: a bad line is told with its number and its text, and its neighbours stay what they are."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.contract import Csv
from conf.settings import PROJECT
from pipelines.sources.files import delimited
from pipelines.sources.files.delimited import Bad, Row, rows

REAL = PROJECT.parent / "shared" / "data"  # real exports, where somebody has them
PLAIN = Csv()
RETAIL = Csv(delimiter=";", line_end="\r\n", null="NULL")


def read(folder: Path, data: bytes, dialect: Csv = PLAIN) -> list[Row | Bad]:
    (folder / "f.csv").write_bytes(data)
    with (folder / "f.csv").open("rb") as file:
        return list(rows(file.fileno(), dialect))


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        (b"1", Bad(2, "it has 1 fields, not 2", "1")),
        (b"1,2,3", Bad(2, "it has 3 fields, not 2", "1,2,3")),
        (b'1,"2', Bad(2, "a quoted field does not end", '1,"2')),
        (b'1,"2"x', Bad(2, "there is text behind a quoted field", '1,"2"x')),
        (b"1,S\xe3o", Bad(2, "it has bytes that are no utf-8", "1,S\\xe3o")),
        (b"", Bad(2, "it is empty", "")),
    ],
)
def test_a_bad_line_keeps_its_text_and_leaves_its_neighbours_alone(tmp_path: Path, line: bytes, bad: Bad) -> None:
    assert read(tmp_path, b"a,b\n" + line + b"\nc,d\n") == [Row(1, ["a", "b"]), bad, Row(3, ["c", "d"])]


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        (b"NULL;x", [None, "x"]),
        (b'"NULL";x', ["NULL", "x"]),
        (b";", ["", ""]),
        (b'"a;""b""";c ', ['a;"b"', "c "]),
        (b'6" nail;"line\nfeed"', ['6" nail', "line\nfeed"]),
        ("São;字😀".encode(), ["São", "字😀"]),
    ],
)
def test_fields_arrive_as_they_stand(tmp_path: Path, line: bytes, texts: list[str | None]) -> None:
    for encoding in ("utf-8", "UTF8"):
        lines = read(tmp_path, b"\xef\xbb\xbfx;y\r\n" + line + b"\r\n", replace(RETAIL, encoding=encoding))
        assert lines == [Row(1, ["x", "y"]), Row(2, texts)]


def test_the_last_line_needs_no_end_and_empty_lines_behind_it_are_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path, b"a,b\n1,2") == read(tmp_path, b"a,b\n1,2\n\n\n") == [Row(1, ["a", "b"]), Row(2, ["1", "2"])]
    assert read(tmp_path, b"") == []


def test_the_last_column_takes_the_rest_of_its_line_where_the_dialect_says_so(tmp_path: Path) -> None:
    data = b'nome,endereco\nA,"Rua, 1"\nB,Rua das Palmeiras, 123, Centro\nC\n'
    assert read(tmp_path, data, replace(PLAIN, rest=True))[1:] == [
        Row(2, ["A", "Rua, 1"]),
        Row(3, ["B", "Rua das Palmeiras, 123, Centro"], rest=True),
        Bad(4, "it has 1 fields, not 2", "C"),
    ]


def test_a_quote_that_stays_open_takes_no_line_with_it(tmp_path: Path) -> None:
    assert read(tmp_path, b'a,b\n1,"x\ny"\n"2,z\n3,w\n') == [
        Row(1, ["a", "b"]),
        Bad(2, "a quoted field does not end", '1,"x'),
        Bad(3, "it has 1 fields, not 2", 'y"'),
        Bad(4, "a quoted field does not end", '"2,z'),
        Row(5, ["3", "w"]),
    ]


@pytest.mark.parametrize("wrong", [{"delimiter": ""}, {"delimiter": '"'}, {"line_end": ""}, {"encoding": "utf-9"}])
def test_a_dialect_that_cannot_be_read_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises((ValueError, LookupError)):
        Csv(**wrong)  # type: ignore[arg-type]


TEXTS = st.text(st.sampled_from('a;"\n é字NUL'), max_size=6)


@given(st.lists(st.tuples(TEXTS | st.none(), TEXTS | st.none()), max_size=6), st.booleans())
def test_what_a_writer_quotes_is_read_back(tmp_path_factory: pytest.TempPathFactory, values, always) -> None:  # type: ignore[no-untyped-def]
    def written(text: str | None) -> str:
        if text is None:
            return "NULL"
        quote = always or text == "NULL" or any(mark in text for mark in ';"\n')
        return '"' + text.replace('"', '""') + '"' if quote else text

    data = "".join(f"{written(first)};{written(second)}\r\n" for first, second in [("x", "y"), *values])
    lines = read(tmp_path_factory.mktemp("f"), data.encode(), RETAIL)
    assert [line.texts for line in lines if isinstance(line, Row)] == [["x", "y"], *map(list, values)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("more", range(1, 12))
def test_a_line_that_is_too_long_is_bad_and_its_neighbours_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, more: int
) -> None:
    """Wherever the cut is, within the end of the line, too."""
    monkeypatch.setattr(delimited, "LINE_LIMIT", 4)
    monkeypatch.setattr(delimited, "SHOWN", 3)
    long = "abcd" + "e" * more
    lines = read(tmp_path, f"a,b{end}{long}{end}1,2{end}{long}".encode(), replace(PLAIN, line_end=end))
    why = "it has more than 4 characters"
    assert lines == [Row(1, ["a", "b"]), Bad(2, why, "abc"), Row(3, ["1", "2"]), Bad(4, why, "abc")]


@pytest.mark.parametrize("file", sorted(REAL.rglob("*.csv")) or [REAL], ids=lambda file: file.name)
def test_real_files_are_read_as_pythons_own_reader_does(file: Path) -> None:
    if not file.is_file():
        pytest.skip(f"no files in {REAL}")
    dialect = RETAIL if "adventureworks" in file.parts else replace(PLAIN, rest=file.name == "condominios.csv")
    with file.open(encoding="utf-8-sig", newline="") as text:
        expected = list(csv.reader(text, delimiter=dialect.delimiter, strict=True))
    width = len(expected[0])
    if dialect.rest:
        expected = [[*texts[: width - 1], ",".join(texts[width - 1 :])] for texts in expected]
    with file.open("rb") as opened:
        lines = list(rows(opened.fileno(), dialect))
    nulls = [[None if text == dialect.null else text for text in texts] for texts in expected]
    assert [line.texts for line in lines if isinstance(line, Row)] == nulls and len(lines) == len(nulls)
