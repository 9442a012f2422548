"""Gold's job: tables that answer questions, built from silver's last complete run, each proved against its input."""

import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from conf.contract import Table
from conf.settings import Settings
from pipelines import lake
from pipelines.catalogue import Entry
from pipelines.errors import QualityFault
from pipelines.proof import Built, prove
from pipelines.records import Run, TableRun
from pipelines.report import Report
from pipelines.spark import read, write_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def fingerprint(key: str) -> list[Column]:
    """Rows, and the sum of the keys' hashes: equal on both sides means no row was lost and none came twice."""
    return [F.count(F.lit(1)).alias("rows"), F.sum(F.xxhash64(key).cast("decimal(38,0)")).alias("keys")]


def build(
    settings: Settings, spark: "SparkSession", upstream: Run, run: int, entries: tuple[Entry, ...], report: Report
) -> Iterator[Built]:
    """Builds the tables. Raises QualityFault where a join lost or multiplied a row, or a cent."""
    for entry in entries:
        started, table = time.monotonic(), entry.table
        report.progress("gold", table.name, 0)
        inputs = inputs_of(settings, spark, upstream, table)
        observed = Observation(table.name)
        path = lake.table_path(settings.gold_path, table)
        files = write_files(transformed(entry, inputs).observe(observed, *fingerprint(table.keys[0])), path, run)
        found = observed.get
        done = TableRun(table.name, 0, found["rows"], found["rows"])
        built = Built(done, table, path, lake.schema_of(table, {}), files)
        totals: dict[str, Decimal] = {}
        if origin := table.one_row_per:
            try:
                keep_every_row(table, upstream.table(origin.name), inputs[origin.module], found)
            except BaseException:
                built.discard()
                raise
            totals = conserved(table, upstream.table(origin.name))
        built = prove(built, lake.types_of(table, {}), table.keys, found["rows"], totals)
        yield replace(built, done=replace(built.done, seconds=time.monotonic() - started))


def keep_every_row(table: Table, origin: TableRun, rows: DataFrame, found: dict[str, Any]) -> None:
    """Raises QualityFault unless the rows written have the keys of `rows`, each once."""
    assert table.one_row_per is not None
    expected = rows.agg(*fingerprint(table.one_row_per.keys[0])).first()
    assert expected is not None
    if (expected["rows"], expected["keys"]) != (found["rows"], found["keys"]) or origin.rows_out != found["rows"]:
        raise QualityFault(
            f"gold.{table.name}: {origin.rows_out} rows of silver.{origin.name} became {found['rows']}, or other ones; "
            "a join lost or multiplied rows, gold and the CSV stay as they were"
        )


def inputs_of(settings: Settings, spark: "SparkSession", upstream: Run, table: Table) -> dict[str, DataFrame]:
    """The silver tables of the run `upstream` that a table is made from, by module."""
    return {
        one.module: read(spark, lake.table_path(settings.silver_path, one), upstream.table(one.name).version)
        for one in table.inputs
    }


def transformed(entry: Entry, inputs: dict[str, DataFrame]) -> DataFrame:
    assert entry.transform is not None
    return entry.transform(*inputs.values())


def conserved(table: Table, origin: TableRun) -> dict[str, Decimal]:
    """The sums that a table of one row per row of `origin` takes over, by its own columns' names."""
    return {
        column.name: origin.totals[column.made_from] for column in table.summed if column.made_from in origin.totals
    }
