"""Gold's job: tables that answer questions, built from silver's last complete run, each proved against its input."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from conf.settings import Settings
from pipelines import lake
from pipelines.catalogue import Entry
from pipelines.errors import QualityFault
from pipelines.lake import Run, TableRun
from pipelines.report import Report
from pipelines.spark import overwrite, read

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def fingerprint(key: str) -> list[Column]:
    """Rows, and the sum of the keys' hashes: equal on both sides means no row was lost and none came twice."""
    return [F.count(F.lit(1)).alias("rows"), F.sum(F.xxhash64(key).cast("decimal(38,0)")).alias("keys")]


def build(
    settings: Settings, spark: "SparkSession", upstream: Run, entries: tuple[Entry, ...], report: Report
) -> Iterator[TableRun]:
    """Builds the tables. Raises QualityFault where a join lost or multiplied a row."""
    for entry in entries:
        started, table = time.monotonic(), entry.table
        assert entry.transform is not None
        report.progress("gold", table.name, 0)

        inputs = {one.module: _silver(settings, spark, upstream, one.domain, one.name) for one in table.inputs}
        frame = entry.transform(*inputs.values())
        observed = Observation(table.name)
        path = lake.table_path(settings.gold_path, table)
        version = overwrite(frame.observe(observed, *fingerprint(table.keys[0])), path, table)
        rows_in = rows_out = observed.get["rows"]
        if table.one_row_per:
            origin = table.one_row_per
            expected = inputs[origin.module].agg(*fingerprint(origin.keys[0])).first()
            assert expected is not None
            rows_in = expected["rows"]
            if (expected["rows"], expected["keys"]) != (observed.get["rows"], observed.get["keys"]):
                raise QualityFault(
                    f"gold.{table.name}: {rows_in} rows of silver.{origin.name} became {rows_out}, or other ones; "
                    "a join lost or multiplied rows, gold and the CSV stay as they were"
                )
        if lake.count_rows(path, version) != rows_out:
            raise QualityFault(f"gold.{table.name}: {rows_out} rows were built, but other ones written; run gold again")
        yield TableRun(table.name, version, rows_in, rows_out, seconds=time.monotonic() - started)


def _silver(settings: Settings, spark: "SparkSession", upstream: Run, domain: str, name: str) -> DataFrame:
    return read(spark, settings.silver_path / domain / name, upstream.table(name).version)
