"""Gold's job: tables that answer questions, built from silver's last complete run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import Observation
from pyspark.sql import functions as F

from conf.contract import Table
from pipelines.core.catalogue import Entry
from pipelines.core.sql import identifier
from pipelines.gold.proof import prove_one_row_per, prove_totals, transformed
from pipelines.lake import folders, schema
from pipelines.lake.engine import engine
from pipelines.lake.runs import MUCH_CHANGED, TableRun, reason_for_full_derived
from pipelines.lake.versions import StagedTable, table_version, verify
from pipelines.spark.frames import read, write_files
from pipelines.spark.job import Job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


# Measured at 20 million movements: a broadcast takes so many times the rows' bytes, beside what the JVM needs itself.
BROADCAST_FACTOR, JVM_BYTES = 3.5, 512 * 2**20


NO_HINTS = "spark.sql.optimizer.disableHints"


def build(job: Job, entries: tuple[Entry, ...]) -> Iterator[StagedTable]:
    """Builds the tables. Raises QualityFault if a join lost or multiplied a row, or a cent."""
    from pipelines.gold.incremental import apply_changes

    for entry in entries:
        started, table = time.monotonic(), entry.table
        job.report.progress("gold", table.name, 0)
        why = reason_for_full_derived(job.settings, job, job.origin, table.name)
        built = None if why else apply_changes(job, entry)
        built = built or _build_in_full(job, entry, why or MUCH_CHANGED)
        yield replace(built, table_run=replace(built.table_run, seconds=time.monotonic() - started))


def _build_in_full(job: Job, entry: Entry, why: str) -> StagedTable:
    """A table from all rows of silver, whatever its last version has."""
    table, spark, silver_path = entry.table, job.session(), job.settings.silver_path
    inputs = {source.module: read(spark, table_version(silver_path, job.upstream, source)) for source in table.inputs}
    observation, path = Observation(table.name), folders.table_path(job.settings.gold_path, table)
    with _hints(spark, _fits(job, [source for source in table.inputs if source != table.one_row_per])):
        rows = transformed(entry, inputs).observe(observation, F.count(F.lit(1)).alias("rows"))
        files = write_files(rows, path, job.run.run)
    count = observation.get["rows"]
    table_run = TableRun(table.name, 0, count, count, full_at=job.run.started, how=f"full: {why}")
    built = StagedTable(table_run, table, path, schema.schema_of(table, {}), files)
    built = verify(built, schema.types_of(table, {}), table.keys, count, {})
    return prove_one_row_per(job, built) if table.one_row_per else prove_totals(job, built)


def _fits(job: Job, small: list[Table]) -> bool:
    """Whether tables that are joined with each other can be broadcast. A row in Spark takes eight bytes a column, and
    its texts."""
    size = 0
    for table in small:
        content = table_version(job.settings.silver_path, job.upstream, table)
        texts = [
            f"coalesce(sum(strlen({identifier(name)})), 0)" for name, kind in content.types.items() if kind == "string"
        ]
        with engine(f"silver.{table.name}") as db:
            (text_bytes,) = db.execute(f"SELECT {' + '.join(['0', *texts])} FROM {content.sql}").fetchone() or (0,)
        size += int(text_bytes) + 8 * len(content.types) * job.upstream.table(table.name).rows_out
    return BROADCAST_FACTOR * size + JVM_BYTES <= job.settings.spark.driver_bytes


@contextmanager
def _hints(spark: "SparkSession", followed: bool) -> Iterator[None]:
    """Whether Spark follows the `F.broadcast` of a transform, or joins as it would without."""
    spark.conf.set(NO_HINTS, str(not followed).lower())
    try:
        yield
    finally:
        spark.conf.unset(NO_HINTS)
