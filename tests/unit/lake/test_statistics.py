"""What the log says of a file hides no row of it from a reader that skips files."""

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipelines.core.types import TYPES
from pipelines.lake import commits, delta
from tests.support.readers import lost, written

DECIMALS = (
    "decimal(1,0)",
    "decimal(4,0)",
    "decimal(9,9)",
    "decimal(15,5)",
    "decimal(10,2)",
    "decimal(15,2)",
    "decimal(18,4)",
    "decimal(38,0)",
    "decimal(38,38)",
)
VALUES: dict[str, list[Any]] = {
    "float": [0.5, float("nan"), -0.0, 0.0, float("-inf")],
    "double": [0.1, float("nan"), -0.0, 0.0, float("inf")],
    "boolean": [True, False],
    "string": ["", "é", "\U0010ffff" * 40],
    "binary": [b"", b"\x00\xff", b"\xff" * 40],
    "date": [datetime(1, 1, 1).date(), datetime(1582, 10, 10).date(), datetime(9999, 12, 31).date()],
    "timestamp_ntz": [
        datetime(1, 1, 1),
        datetime(2018, 11, 4, 0, 30, 0, 123456),
        datetime(9999, 12, 31, 23, 59, 59, 999999),
    ],
    "timestamp": [datetime(1, 1, 2, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)],
    "decimal(1,0)": [Decimal(-9), Decimal(0), Decimal(9)],
    "decimal(4,0)": [Decimal(1), Decimal(10), Decimal(9999)],
    "decimal(9,9)": [Decimal("0.000000001"), Decimal("0.999999999")],
    "decimal(15,5)": [Decimal("-0.00001"), Decimal("0.00001"), Decimal("9999999999.99999")],
    "decimal(10,2)": [Decimal("-99999999.99"), Decimal("0.29"), Decimal("99999999.99")],
    "decimal(15,2)": [Decimal("-9999999999999.99"), Decimal("0.07"), Decimal("1234567890123.45")],
    "decimal(18,4)": [Decimal("0.3000"), Decimal("12345678901.2345"), Decimal("99999999999999.9999")],
    "decimal(38,0)": [Decimal(1), Decimal("9" * 38)],
    "decimal(38,38)": [Decimal("0.1"), Decimal("0." + "9" * 38)],
    **{f"{name}": [-(2 ** (bits - 1)), 0, 2 ** (bits - 1) - 1] for name, bits in (("smallint", 16), ("integer", 32))},
    "bigint": [-(2**53) - 1, 0, 2**53 + 1, 2**63 - 1],
}


def stats_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line["add"]["stats"]) for line in delta.last_commit(path) if "add" in line]


def test_every_type_that_a_contract_may_name_is_tried() -> None:
    assert VALUES.keys() == TYPES.keys() | {*DECIMALS}


@pytest.mark.parametrize("kind", VALUES)
def test_no_filter_loses_a_row(kind: str, tmp_path: Path) -> None:
    values = VALUES[kind]
    groups = [*([value] for value in values), [values[0], None], [None, None], [*values, None]]
    files = [{"id": list(range(number, number + len(group))), "v": group} for number, group in enumerate(groups)]
    path = tmp_path / re.sub(r"\W", "_", kind)
    written(path, {"id": "bigint", "v": kind}, *files)
    assert lost(path, ("id", "v")) == []


def test_extremes_are_there_although_a_file_does_not_say_them(tmp_path: Path) -> None:
    types = {"id": "bigint", "valor": "decimal(10,2)"}
    written(tmp_path, types, {"id": [1, 2], "valor": [Decimal("1.50"), None]})
    (file,) = tmp_path.glob("*.parquet")
    table = pq.read_table(file)
    pq.write_table(table, file, write_statistics=False)
    assert commits.statistics(file, ("id", "valor")) == stats_of(tmp_path)[0]
    assert stats_of(tmp_path)[0]["maxValues"] == {"id": 2, "valor": 1.5}


def test_a_table_whose_log_has_no_extremes_says_so_in_words_that_all_know(tmp_path: Path) -> None:
    """An empty list of columns is no list to some."""
    written(tmp_path, {"nome": "string"}, {"nome": ["Ana", None]})
    (metadata,) = [line["metaData"] for line in delta.last_commit(tmp_path) if "metaData" in line]
    properties = metadata["configuration"]
    assert properties["delta.dataSkippingNumIndexedCols"] == "0" and "delta.dataSkippingStatsColumns" not in properties
    assert stats_of(tmp_path) == [{"numRecords": 2, "minValues": {}, "maxValues": {}, "nullCount": {}}]
    assert lost(tmp_path) == []


def test_names_are_quoted_only_where_they_must_be(tmp_path: Path) -> None:
    """Old readers take the quotes for a part of the name."""
    written(tmp_path, {"id": "bigint", "data do saldo": "date"}, {"id": [1], "data do saldo": [None]})
    properties = delta.read_version(tmp_path, 0).metadata.configuration
    assert properties["delta.dataSkippingStatsColumns"] == "id,`data do saldo`"


def test_a_column_without_extremes_is_named_nowhere(tmp_path: Path) -> None:
    written(tmp_path, {"id": "bigint", "peso": "double"}, {"id": [1], "peso": [float("nan")]})
    assert delta.read_version(tmp_path, 0).metadata.configuration["delta.dataSkippingStatsColumns"] == "id"
    assert stats_of(tmp_path)[0]["nullCount"] == {"id": 0}
    (file,) = tmp_path.glob("*.parquet")
    assert duckdb.sql(f"SELECT count(*) FROM '{file}' WHERE peso > 1e308").fetchone() == (1,)
    assert not pq.read_metadata(file).row_group(0).column(1).is_stats_set


def test_days_that_spark_does_not_know_are_within_looser_extremes(tmp_path: Path) -> None:
    """Spark takes 1582-10-05 to 1582-10-14 in the log for later days."""
    written(tmp_path, {"v": "date"}, {"v": [datetime(1582, 10, 10).date()]}, {"v": [datetime(1582, 10, 15).date()]})
    (within, after) = stats_of(tmp_path)
    assert (within["minValues"], within["maxValues"]) == ({"v": "1582-10-04"}, {"v": "1582-10-15"})
    assert within["tightBounds"] is False and "tightBounds" not in after
    assert lost(tmp_path, ("v",)) == []
