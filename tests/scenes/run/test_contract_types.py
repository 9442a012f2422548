"""Every type that a contract may name, from both kinds of source to CSV and Parquet; a new type is tested by its row."""

import csv
import io
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from conf.contract import Column, Csv, Files, Table
from conf.settings import Postgres
from pipelines.commands.reconcile.reconcile import reconcile
from pipelines.core import catalogue
from pipelines.core.catalogue import Entry
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS
from pipelines.core.sql import spark_literal
from pipelines.core.types import TYPES, type_of
from pipelines.export.publish import export
from pipelines.lake.schema import arrow_type
from pipelines.lake.versions import table_version
from pipelines.seed import files as seed_files
from pipelines.seed import postgres as seed_postgres
from pipelines.sources.files.values import value_of
from pipelines.sources.postgres.connection import connect
from tests.support.lake import NOWHERE, Lake
from tests.support.source import connected, fresh_database

DECIMALS = ("decimal(10,2)", "decimal(18,0)", "decimal(27,27)", "decimal(38,0)", "decimal(38,38)")
KINDS = (*TYPES, *DECIMALS)
ROWS = 60  # of the seed; then come rows of each sample and a row of nulls
SAMPLES = max(len(type_of(kind).samples) for kind in KINDS)
every_type = pytest.mark.parametrize("kind", KINDS)
every_source = pytest.mark.parametrize("domain", ["tipos", "tipos_de_arquivos"])


def name_of(kind: str) -> str:
    return kind.translate(str.maketrans("(,)", "___"))


ENTRIES_OF_MODULES = catalogue.entries.__wrapped__


# `given` is nullable and filled by the tests, `made` by the default maker of the seed.
COLUMNS = (
    Column("id", "bigint", "Id", key=True),
    *(Column(f"given_{name_of(kind)}", kind, "Given", nullable=True) for kind in KINDS),
    *(Column(f"made_{name_of(kind)}", kind, "Made") for kind in KINDS),
)


def same(valores: DataFrame) -> DataFrame:
    return valores


def entries_of(domain: str, files: Files | None) -> dict[str, Entry]:
    doc = "One row per id."
    bronze = Table(f"bronze.{domain}.valores", doc, COLUMNS, files=files, fake_rows=1)
    silver = Table(f"silver.{domain}.valores", doc, bronze.carried(), inputs=(bronze,), history=True)
    gold = Table(f"gold.{domain}.valores", doc, silver.carried(), inputs=(silver,), one_row_per=silver, csv=True)
    shown = [column.name for column in COLUMNS]
    return {
        "bronze": Entry(bronze, None),
        "silver": Entry(silver, lambda valores: valores.select(*shown, "_rescued")),
        "gold": Entry(gold, lambda valores: valores.select(*shown)),
    }


DOMAINS = {"tipos": None, "tipos_de_arquivos": Files("valores*.csv", Csv(null="NULL"), replaced=True)}
ENTRIES = {domain: entries_of(domain, files) for domain, files in DOMAINS.items()}


@dataclass
class Values:
    """A lake that took every value of every type: what the source has of each column, and what came of it."""

    lake: Lake
    source: dict[str, list[str | None]]
    tables: dict[tuple[str, str], pa.Table] = field(default_factory=dict)

    def table(self, layer: str, name: str = "valores") -> pa.Table:
        """A table of the last run in the order of its ids."""
        if (layer, name) not in self.tables:
            self.tables[layer, name] = self._table(layer, name)
        return self.tables[layer, name]

    def _table(self, layer: str, name: str) -> pa.Table:
        path = self.lake.settings().layer_path(layer)
        table = ENTRIES[self.lake.domain][layer].table
        version = table_version(path, self.lake.last(layer), table, name)
        return duckdb.sql(f"FROM {version.sql} ORDER BY id").to_arrow_table()

    def expected(self, column: Column) -> list[Any]:
        value = value_of(column.type)
        return [None if text is None else bits(column.type, value(text)) for text in self.source[column.name]]


def bits(kind: str, value: Any) -> Any:
    """A value so that equal means the same."""
    return (
        struct.pack("<f" if kind == "float" else "<d", value)
        if kind in ("float", "double") and value is not None
        else value
    )


def shown(kind: str, column: pa.ChunkedArray) -> list[Any]:
    return [bits(kind, value) for value in column.cast(arrow_type(kind)).to_pylist()]


def sample(kind: str, row: int) -> str:
    samples = type_of(kind).samples
    return samples[row % len(samples)]


@pytest.fixture(scope="module")
def two_sources() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "entries", lambda layer: tuple(made[layer] for made in ENTRIES.values()))
        yield


@pytest.fixture(scope="module")
def from_postgres(
    two_sources: None, server: Postgres, any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Values]:
    """Two nights: the seed's rows, then each sample in some of them, and one deleted; what PostgreSQL prints of them."""
    with fresh_database(server) as address:
        lake = Lake(tmp_path_factory.mktemp("tipos"), address, any_spark, "tipos")
        with Report() as report:
            tables = catalogue.tables_of("bronze", "tipos")
            seed_postgres.seed(lake.settings(SEED__MOVIMENTOS=str(ROWS)), address, tables, False, report)
        lake.run()
        given = [column for column in COLUMNS if column.nullable]
        with connected(address) as connection, connection.cursor() as cursor:
            for row in range(SAMPLES):
                values = ", ".join(f'"{column.name}" = %s' for column in given)
                texts = [sample(column.type, row) for column in given]
                cursor.execute(f"UPDATE valores SET {values} WHERE id = {row + 1}", texts)
            cursor.execute("DELETE FROM valores WHERE id = 59")
        lake.run()
        with connect(address, copies=True) as connection, connection.cursor() as cursor:
            cursor.execute("SET TimeZone = 'UTC'")
            names = ", ".join(f'"{column.name}"' for column in COLUMNS)
            rows_of = f"SELECT {names} FROM valores ORDER BY id"
            text = io.StringIO()
            cursor.copy_expert(f"COPY ({rows_of}) TO STDOUT (FORMAT csv, NULL '<>')", text)
        rows = list(csv.reader(io.StringIO(text.getvalue())))
        yield Values(lake, columns_of(rows, "<>"))


@pytest.fixture(scope="module")
def from_files(two_sources: None, any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Values:
    """The seed's file, which is replaced by one that also has each sample."""
    lake = Lake(tmp_path_factory.mktemp("files"), NOWHERE, any_spark, "tipos_de_arquivos")
    folder = lake.folder / "landing" / lake.domain
    with Report() as report:
        tables = catalogue.tables_of("bronze", lake.domain)
        seed_files.seed(lake.settings(SEED__MOVIMENTOS=str(ROWS)), folder, tables, report)
    lake.run()
    with (folder / "valores.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    for row in range(SAMPLES):
        for index, column in enumerate(COLUMNS):
            if column.nullable:
                rows[row][index] = sample(column.type, row)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    lake.drop("valores.csv", text.getvalue(), 10)
    lake.run()
    return Values(lake, columns_of(rows, "NULL"))


def columns_of(rows: list[list[str]], null: str) -> dict[str, list[str | None]]:
    texts = zip(*rows, strict=True)
    return {
        column.name: [None if text == null else text for text in cells]
        for column, cells in zip(COLUMNS, texts, strict=True)
    }


@pytest.fixture
def values(domain: str, from_postgres: Values, from_files: Values) -> Values:
    return from_postgres if domain == "tipos" else from_files


def of_type(kind: str) -> list[Column]:
    return [column for column in COLUMNS if column.type == kind]


@every_source
@every_type
def test_each_value_is_the_same_in_every_layer(kind: str, values: Values) -> None:
    for column in of_type(kind):
        expected = values.expected(column)
        assert len(set(expected) - {None}) > 1 and (None in expected) == column.nullable
        for layer in LAYERS:
            assert shown(kind, values.table(layer)[column.name]) == expected, layer


@every_source
@every_type
def test_the_csv_has_each_value_as_postgresql_prints_it(kind: str, values: Values) -> None:
    file = values.lake.folder / "export/valores.csv"
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
    for column in of_type(kind):
        assert [row[column.name] or None for row in rows] == values.source[column.name]


@every_source
@every_type
def test_the_parquet_export_has_each_value_in_its_type(kind: str, values: Values) -> None:
    file = values.lake.folder / "export/valores.parquet"
    if not file.exists():
        with Report() as report:
            export(values.lake.settings(), catalogue.tables_of("gold", values.lake.domain), report, as_parquet=True)
    exported = pq.read_table(file)
    for column in of_type(kind):
        assert shown(kind, exported[column.name]) == values.expected(column)


# The log has no extremes of these, by which a reader could skip a file.
WITHOUT_EXTREMES = {"boolean", "float", "double", "string", "binary", "timestamp"}


def test_the_log_has_extremes_of_no_such_type(from_postgres: Values) -> None:
    names = {column.name for column in COLUMNS if column.type in WITHOUT_EXTREMES}
    lines = [json.loads(line) for text in from_postgres.lake.log_texts() for line in text.splitlines()]
    extremes = [set(json.loads(line["add"]["stats"])["minValues"]) for line in lines if "add" in line]
    assert any("id" in columns for columns in extremes) and not any(names & columns for columns in extremes)


@pytest.mark.jvm
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.long] * (kind in WITHOUT_EXTREMES)) for kind in KINDS]
)
def test_spark_finds_each_value_by_the_path_of_gold(kind: str, from_postgres: Values, spark: SparkSession) -> None:
    """What the log says of a file's extremes hides no row from a reader that skips files."""
    lake, column = from_postgres.lake, f"given_{name_of(kind)}"
    path = lake.settings().layer_path("gold") / lake.domain / "valores"
    assert pa.schema(DeltaTable(path).schema().to_arrow()).field(column).type == arrow_type(kind)
    frame = spark.read.format("delta").load(str(path))
    texts = {sample(kind, 0), sample(kind, -1), sample(kind, 1)}
    counts = []
    for text in texts:
        literal = f"unhex('{text[2:]}')" if kind == "binary" else f"CAST({spark_literal(text)} AS {kind})"
        counts.append(frame.where(f"{column} = {literal}").selectExpr(f"{spark_literal(text)} AS text", "count(*)"))
    counted: dict[str, int] = dict(reduce(DataFrame.unionAll, counts).collect())
    assert counted == {text: from_postgres.source[column].count(text) for text in texts}


@every_source
@every_type
def test_the_history_has_the_earlier_and_the_current_value(kind: str, values: Values) -> None:
    rows = values.table("silver", "valores__history")
    current, earlier = (rows.filter(pc.equal(rows["_current"], wanted)) for wanted in (True, False))
    for column in of_type(kind):
        assert shown(kind, current[column.name]) == values.expected(column)
        assert len(earlier) >= SAMPLES and (set(earlier[column.name].to_pylist()) == {None}) == column.nullable


@every_source
def test_everything_agrees(values: Values, capsys: pytest.CaptureFixture[str]) -> None:
    with Report() as report:
        reconcile(values.lake.settings(), (values.lake.domain,), report, values.lake.spark)
    assert "everything agrees" in capsys.readouterr().out


def test_a_type_that_no_contract_may_name_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("int", "decimal(39,2)", "decimal(5,6)", "decimal(0,0)", "array<string>", "timestamp_tz"):
        module = SimpleNamespace(
            __name__="bronze.tipos.valores", TABLE=Table("bronze.tipos.valores", "x", (Column("valor", kind, "x"),))
        )
        monkeypatch.setattr(catalogue, "_modules", lambda layer, module=module: [module])
        with pytest.raises(UsageFault) as fault:
            ENTRIES_OF_MODULES("bronze")
        assert f"bronze/tipos/valores.py: column valor: there is no type {kind}; there are boolean" in str(fault.value)
