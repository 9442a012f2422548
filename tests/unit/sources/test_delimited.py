"""Delimited text: a bad line is told with its number and its text, and its neighbours stay what they are."""

import codecs
import csv
import encodings.aliases
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.contract import Csv
from conf.settings import PROJECT
from pipelines.sources.files import delimited
from pipelines.sources.files.delimited import Bad, Row, rows, unread

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


def test_empty_lines_are_counted_not_kept(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_bytes(b"a,b\n1,2\n" + b"\n" * 50_000)
    with (tmp_path / "f.csv").open("rb") as file:
        tracemalloc.start()
        assert len(list(rows(file.fileno(), PLAIN))) == 2
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20
    assert [(line.line, type(line)) for line in read(tmp_path, b"a,b\n\n\n1,2\n\n3,4\n\n")] == [
        *((number, Row if number in (1, 4, 6) else Bad) for number in range(1, 7))
    ]


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


@pytest.mark.parametrize(
    "wrong",
    [{"delimiter": text} for text in ("", '"', "\r", "\n")]
    + [{"line_end": ""}, {"encoding": "utf-9"}, {"encoding": "ascii", "delimiter": "¦"}],
)
def test_a_dialect_that_cannot_be_read_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises((ValueError, LookupError)):
        Csv(**wrong)  # type: ignore[arg-type]


ENCODINGS = sorted({*encodings.aliases.aliases.values(), "unicode_escape", "raw_unicode_escape", "undefined", "idna"})


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_is_refused_by_its_name_or_keeps_bytes_that_are_no_text_to_their_line(
    tmp_path: Path, encoding: str
) -> None:
    """Every one that Python has."""
    try:
        dialect = Csv(encoding=encoding, line_end="\r\n")
    except (ValueError, LookupError) as refused:
        assert encoding in str(refused)
        return
    lines = ["ab,c\r\n", "d-,1\r\n", "e+,2\r\n", "f,3\r\n"]
    parts = ["".join(lines).encode(encoding), *("".join(lines[:n]).encode(encoding) for n in (2, 0))]
    assert [line.texts for line in read(tmp_path, parts[0], dialect) if isinstance(line, Row)] == [
        line.strip().split(",") for line in lines
    ]
    start, unit = len(parts[1]), len("aa".encode(encoding)) - len("a".encode(encoding))
    for byte in (0x80, 0x81, 0xD8, 0xDC, 0xFE, 0xFF):
        data = parts[0][:start] + bytes([byte]) * unit + parts[0][start:]
        header, before, damaged, after = read(tmp_path, data, dialect)
        assert isinstance(header, Row) and before == Row(2, ["d-", "1"]) and after == Row(4, ["f", "3"])
        assert isinstance(damaged, Row) or "bytes that are no" in damaged.why or "byte order mark" in damaged.why


@pytest.mark.parametrize("encoding", ["unicode_escape", "idna", "punycode", "undefined", "rot13", "hex", "mbcs"])
def test_an_encoding_that_is_none_of_text_is_refused_when_the_contract_is_made(encoding: str) -> None:
    with pytest.raises((ValueError, LookupError), match=encoding):
        Csv(encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "windows-1253", "us-ascii", "iso-8859-3"])
def test_a_file_of_bytes_that_are_no_text_is_kept_at_the_pace_of_one_that_is(tmp_path: Path, encoding: str) -> None:
    """No call for each byte: a file of 1 GB that is no text would hold the lock for half an hour."""
    calls: list[UnicodeError] = []

    def kept(error: UnicodeError) -> tuple[str, int]:
        calls.append(error)
        return delimited._keep_bytes(error)

    codecs.register_error("keep_bytes", kept)
    data = bytes(byte for byte in range(256) if byte not in b"\r\n") * 20
    try:
        lines = read(tmp_path, b"a\n" + data + b"\n1\n", replace(PLAIN, encoding=encoding))
    finally:
        codecs.register_error("keep_bytes", delimited._keep_bytes)
    assert not calls and [line.line for line in lines] == [1, 2, 3]


def utf16(*parts: str | bytes, order: str = "le") -> bytes:
    return b"".join(part if isinstance(part, bytes) else part.encode(f"utf-16-{order}") for part in parts)


def test_utf_16_is_known_by_every_name_that_it_has(tmp_path: Path) -> None:
    data = utf16("a\n1\n", b"2", "3\n4\n", b"5", "6\n7\n", order="be")
    for name in ("utf-16-be", "UTF_16BE", "UnicodeBigUnmarked"):
        assert [type(line) for line in read(tmp_path, data, replace(PLAIN, encoding=name))] == [Row, Row, Bad, Row]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (utf16("\ufeffa,b\n1,2\n", b"A"), {2: ["1", "2"], 3: "\\x41"}),  # half a character at the end
        (utf16("\ufeffa,b\n1,", b"\0\xd8", "2\n3,4\n"), {2: "1,\\x00\\xd82", 3: ["3", "4"]}),  # half of a pair
        (utf16("\ufeffa,b\n1,", b"\0\xdc", "2\n3,4\n"), {2: "1,\\x00\\xdc2", 3: ["3", "4"]}),
        (utf16("a,b\n1,2\n", "3,4\n"), {2: ["1", "2"], 3: ["3", "4"]}),  # without a byte order mark
        (utf16("a,b\n1,2\n", "3,4\n", order="be"), {2: ["1", "2"], 3: ["3", "4"]}),
        # A byte too many: where lines end is not known any more, and all of it is kept as one.
        (utf16("a,b\n1,2\n3,", b"A", "4\n5,6\n"), {2: ["1", "2"], 3: "3,\u3441\u0a00\u3500Ⰰ㘀\u0a00\\x00"}),
        (utf16("a\n1\n", b"2", "3\n4\n", b"5", "6\n7\n"), {2: ["1"], 3: "㌲\u0a00㐀\u0a00㔀6", 4: ["7"]}),
        # Another file behind it, with the other order of bytes.
        (utf16("\ufeffa\n1\n") + utf16("\ufeffa\n2\n", order="be"), {2: ["1"], 3: "\ufffe愀\u0a00㈀\u0a00"}),
        (utf16("\ufeffa,b\n1,2\n") + utf16("\ufeffa,b\n3,4\n"), {2: ["1", "2"], 3: "\ufeffa,b", 4: ["3", "4"]}),
    ],
)
def test_a_byte_that_is_no_utf_16_makes_its_line_bad(tmp_path: Path, data: bytes, lines: dict[int, object]) -> None:
    kept = read(tmp_path, data, replace(PLAIN, encoding="utf-16"))[1:]
    assert {line.line: line.texts if isinstance(line, Row) else line.raw for line in kept} == lines


ALIEN = {"\n": "LF", "\r\n": "CR LF", "\r": "CR"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("header", ["nome,valor", '"nome","valor"', 'nome,"valor"'])
@pytest.mark.parametrize(("end", "promised"), [(a, b) for a in ALIEN for b in ALIEN if a != b])
def test_line_ends_that_are_not_the_contracts_make_every_line_bad_and_have_a_name(
    tmp_path: Path, encoding: str, header: str, end: str, promised: str
) -> None:
    dialect = Csv(encoding=encoding, line_end=promised)
    data = "".join(f"{line}{end}" for line in (header, 'São,"1"', "Rua,2")).encode(encoding)
    first, *lines = read(tmp_path, data, dialect)
    why = f"its lines end with {ALIEN[end]}, the contract says {ALIEN[promised]}"
    if (end, promised) == ("\r\n", "\r"):  # the header ends as it should
        assert isinstance(first, Row) and {line.why for line in lines if isinstance(line, Bad)} == {why}
        assert len(lines) == 3
        return
    assert isinstance(first, Bad) and first.why == why
    with (tmp_path / "f.csv").open("rb") as file:
        assert list(unread(file.fileno(), dialect, why)) == [
            Bad(1, why, header),
            Bad(2, why, 'São,"1"'),
            Bad(3, why, "Rua,2"),
        ]


@pytest.mark.parametrize(
    ("promised", "data", "lines"),
    [
        ("\n", "a,b\n1,2\r\n3,4\n", {2: "CR LF", 3: ["3", "4"]}),
        ("\n", 'a,b\n1,"2"\r\n3,"4\r"\n', {2: "CR LF", 3: ["3", "4\r"]}),
        ("\n", 'a,b\n1,6" nail\r\n', {2: "CR LF"}),
        ("\n", 'a,b\n1,"x\r\ny"\n', {2: "a quoted field does not end", 3: "it has 1 fields, not 2"}),
        ("\n", "a,b\n1,2\r3,4\n5,6\r7\n", {2: "CR", 3: ["5", "6\r7"]}),
        ("\r\n", "a,b\r\n1,2\n3,4\r\n5,6\n7\r\n", {2: "LF", 3: ["5", "6\n7"]}),
        ("\r\n", 'a,b\r\n1,"2"\n3,4\r\n', {2: "LF"}),
        ("\r\n", 'a,b\r\n1,"2\n3",4\r\n', {2: "it has 3 fields, not 2"}),
        ("\r\n", 'a\r\n1\n2\r\n"3\n4"\r\n', {2: "LF", 3: ["3\n4"]}),
        ("\r", "a,b\r1,2\r\n3,4\r", {2: ["1", "2"], 3: "CR LF"}),
        ("\r\n", "a,b\r\r\n1,2\r\r\n", {1: "CR CR LF"}),
        ("\r\n", 'a,b\r\n1,2\r\r\n3,"4\r"\r\n', {2: "CR CR LF", 3: ["3", "4\r"]}),
        ("\r\n", "a,b\r\n1,2\r\n3,4\n", {2: ["1", "2"], 3: "LF"}),
        ("\r\n", "a,b\r\n1,2\r\n\n3,4\r\n", {2: ["1", "2"], 3: "LF"}),
        ("\r\n", "a,b\r\n1,2\r\n3,4\r", {2: ["1", "2"], 3: "CR CR LF"}),  # the file is cut in two there
        ("\r", "a,b\r1,2\r3,4\n", {2: ["1", "2"], 3: "LF"}),
        ("\n", "a,b\n\r1,2\n\r", {2: "CR", 3: "CR LF"}),
    ],
)
def test_a_line_among_others_that_ends_otherwise_is_bad_and_a_field_may_have_breaks(
    tmp_path: Path, promised: str, data: str, lines: dict[int, object]
) -> None:
    kept = read(tmp_path, data.encode(), replace(PLAIN, line_end=promised))

    def shown(line: Row | Bad) -> object:
        if isinstance(line, Row):
            return line.texts
        return line.why.removeprefix("its lines end with ").removesuffix(f", the contract says {ALIEN[promised]}")

    assert {line.line: shown(line) for line in kept if line.line in lines} == lines


AGAIN, OTHER = "it is the header again", "it is another header"


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("nome,rua\nA,1\nnome,rua\nB,2\n", {3: AGAIN, 4: ["B", "2"]}),
        ("\ufeffnome,rua\nA,1\n\ufeffnome,rua\nB,2\n", {3: AGAIN, 4: ["B", "2"]}),
        ('nome,rua\nA,1\n\ufeff"NOME", Rua \nB,2\n', {3: AGAIN, 4: ["B", "2"]}),
        ("nome,rua\nA,1\nnome,rua\r\nB,2\r\nC,3\n", {3: AGAIN, 4: "its lines end with CR LF", 5: ["C", "3"]}),
        # What follows another header would be read wrongly.
        ("nome,rua\nA,1\nrua,nome\n2,B\nnome,rua\nC,3\n", {3: OTHER, 4: "it stands behind another header, in line 3"}),
        ("nome,rua\nA,1\nrua,nome\n2,B\nnome,rua\nC,3\n", {5: AGAIN, 6: ["C", "3"]}),
        ("nome,rua\nA,1\nrua,nome,x\n2,B,x\nC,3\n", {3: OTHER, 5: "it stands behind another header, in line 3"}),
        ("nome,rua,x\nA,1,\nnome,rua,y\nB,2,\n", {3: OTHER, 4: "it stands behind another header, in line 3"}),
        ("nome,rua,,\nA,1,,\nnome,rua,,\nB,2,,\n", {3: AGAIN, 4: ["B", "2", None, None]}),
        ("nome,rua\nnome,1\nA,rua\n", {2: ["nome", "1"], 3: ["A", "rua"]}),
        # What is no row may have names that are written otherwise, a row may not be taken for a header by chance.
        ("TransactionId,AccountNumber\n1,2\ntransactionId,accountNumber\n3,4\n", {3: AGAIN, 4: ["3", "4"]}),
        ("TransactionId,AccountNumber\n1,2\nACCOUNTNumber,transactionID\n3,4\n", {3: OTHER}),
        (",nome,rua\n0,A,1\n,nOME,rUA\n1,B,2\n", {3: AGAIN, 4: ["1", "B", "2"]}),
        ("id,name,value\n1,Name,Value\n2,Color,red\n", {2: ["1", "Name", "Value"], 3: ["2", "Color", "red"]}),
        ("id,name,value\n1,name,value\n2,id,name\n", {2: ["1", "name", "value"], 3: ["2", "id", "name"]}),
        ("id,name,value,type\n1,Name,Value,Type\n", {2: ["1", "Name", "Value", "Type"]}),
        ("tabela,coluna,tipo\nx,tipo,Coluna\ny,a,b\n", {2: ["x", "tipo", "Coluna"], 3: ["y", "a", "b"]}),
        ("tabela,coluna,tipo\ncoluna,tipo,\ntipo,tipo,coluna\n", {2: ["coluna", "tipo", None]}),
        ("tabela,coluna,tipo\ncoluna,tipo,\ntipo,tipo,coluna\n", {3: ["tipo", "tipo", "coluna"]}),
        ("a,b,c,d,e,f\n1,2,3,4,5,6\nA,x,C,D,y,F\n", {3: OTHER}),
        # In a file of one column a row may have the name, if it is spelled in another way.
        ("nome\nA\nnome\nNome\n", {3: AGAIN, 4: ["Nome"]}),
        ('nome\n"nome"\n', {2: ["nome"]}),
        ("nome,rua\nA,1\n\ufeffB,2\n", {3: "it begins with a byte order mark, as another file does"}),
        (
            "\ufeff\ufeffnome,rua\n\ufeff",
            {1: ["nome", "rua"], 2: "it begins with a byte order mark, as another file does"},
        ),
    ],
)
def test_a_header_among_the_lines_is_no_row(tmp_path: Path, data: str, lines: dict[int, object]) -> None:
    kept = {line.line: line for line in read(tmp_path, data.encode())}
    for number, expected in lines.items():
        line = kept[number]
        assert line.texts == expected if isinstance(line, Row) else line.why.startswith(str(expected)), line


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("rua,nome\nRua A, 1,Alfa\nRua B,Beta\n", {2: "it has 3 fields, not 2", 3: ["Rua B", "Beta"]}),
        ("nome,rua,x\nA,Rua A, 1,2\nB,Rua B,2\n", {2: "it has 4 fields, not 3", 3: ["B", "Rua B", "2"]}),
        ("nome,rua,\nA,Rua A, 1,\nB,Rua B,\n", {2: "it has 4 fields, not 3", 3: ["B", "Rua B", None]}),
        ("x,nome,rua\n1,A,Rua A, 1\n", {2: ["1", "A", "Rua A, 1"]}),
        ("nome,rua\nA,1\nnome,rua,x\nB,2,3\n", {3: OTHER, 4: "it stands behind another header, in line 3"}),
        ("nome,rua\nA,1\nx,nome,rua\n3,B,2\n", {3: OTHER, 4: "it stands behind another header, in line 3"}),
        ("nome,rua\nA,leva nome, nome,rua\nB,2\n", {2: ["A", "leva nome, nome,rua"], 3: ["B", "2"]}),
        ("nome,a,b,c,rua\nZ,1,2,3,sem a, b, c, nome, rua\n", {2: ["Z", "1", "2", "3", "sem a, b, c, nome, rua"]}),
        ("nome,rua\nA,1\r2,B\n", {2: "its lines end with CR, the contract says LF"}),
    ],
)
def test_only_the_last_column_of_contract_and_header_takes_the_rest(
    tmp_path: Path, data: str, lines: dict[int, object]
) -> None:
    (tmp_path / "f.csv").write_text(data)
    with (tmp_path / "f.csv").open("rb") as file:
        kept = {line.line: line for line in rows(file.fileno(), replace(PLAIN, rest=True), "rua")}
    assert {
        number: line.texts if isinstance(line, Row) else line.why for number, line in kept.items() if number in lines
    } == lines


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
