"""What the CSV must say, by one SQL query over the source (oracle.sql), compared cell by cell."""

import csv
import io
from pathlib import Path

from gold.cartoes import movimento_flat
from silver.columns import BLANKS
from tests.support.lake import Lake
from tests.support.source import query

HEADER = [column.name for column in movimento_flat.TABLE.columns if not column.name.startswith("_")]
ORACLE = (Path(__file__).with_name("oracle.sql")).read_text("utf-8")


def expected(lakehouse: Lake, plain: bool = False) -> list[list[str]]:
    """The oracle's rows, NULL as an empty cell."""
    sql = ORACLE.replace(":blanks", "E'" + BLANKS.replace("\\", "\\\\") + "'").replace(":plain", str(plain))
    return [[cell or "" for cell in row] for row in query(lakehouse.address, sql)]


def cells(text: bytes) -> list[list[str]]:
    csv.field_size_limit(2**24)
    return list(csv.reader(io.StringIO(text.decode("utf-8"), newline="")))


def agree(lakehouse: Lake, plain: bool = False) -> int:
    """Asserts that the CSV says what the oracle says; the number of movements."""
    actual, wanted = cells(lakehouse.csv), expected(lakehouse, plain)
    assert actual[0] == HEADER
    for row, other in zip(actual[1:], wanted, strict=True):
        assert row == other
    return len(wanted)
