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
from pipelines.core.errors import QualityFault
from pipelines.core.sql import identifier
from pipelines.gold.proof import like, transformed
from pipelines.lake import folders, full_build, schema
from pipelines.lake.engine import Engine, engine
from pipelines.lake.runs import TableRun
from pipelines.lake.staging import StagedTable, verify
from pipelines.lake.versions import table_version
from pipelines.spark.frames import read, write_files
from pipelines.spark.job import Job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


# A broadcast of so many bytes takes some times that, beside what the JVM needs for all else (at 20 million movements).
TIMES, ELSE = 3.5, 512 * 2**20


NO_HINTS = "spark.sql.optimizer.disableHints"


def build(job: Job, entries: tuple[Entry, ...]) -> Iterator[StagedTable]:
    """Builds the tables. Raises QualityFault where a join lost or multiplied a row, or a cent."""
    from pipelines.gold.incremental import apply_changes

    for entry in entries:
        began, table = time.monotonic(), entry.table
        job.report.progress("gold", table.name, 0)
        why = full_build.reason_for_full_derived(job.settings, job, job.origin, table.name)
        built = None if why else apply_changes(job, entry)
        built = built or _whole(job, entry, why or full_build.MUCH)
        yield replace(built, table_run=replace(built.table_run, seconds=time.monotonic() - began))


def _whole(job: Job, entry: Entry, why: str) -> StagedTable:
    """All rows of a table, whatever its last version has."""
    table, spark = entry.table, job.session()
    inputs = {
        one.module: read(spark, table_version(job.settings.silver_path, job.upstream, one)) for one in table.inputs
    }
    observed = Observation(table.name)
    path = folders.table_path(job.settings.gold_path, table)
    with _hints(spark, _fits(job, [one for one in table.inputs if one != table.one_row_per])):
        rows = transformed(entry, inputs).observe(observed, F.count(F.lit(1)).alias("rows"))
        files = write_files(rows, path, job.run.run)
    count = observed.get["rows"]
    done = TableRun(table.name, 0, count, count, full_at=job.run.started, how=f"full: {why}")
    built = StagedTable(done, table, path, schema.schema_of(table, {}), files)
    built = verify(built, schema.types_of(table, {}), table.keys, count, {})
    if table.one_row_per:
        return like(job, built, table.one_row_per)
    try:
        _add_up(job, built)
    except BaseException:
        built.discard()
        raise
    return built


def _add_up(job: Job, built: StagedTable) -> None:
    """Raises QualityFault where a key comes twice, or a column's sum is not the total that its contract promises."""
    table, content = built.table, built.content

    def asked(duck: Engine, what: str, rows: str) -> object:
        found = duck.execute(f"SELECT {what} FROM {rows}").fetchone()
        return found[0] if found else None

    with engine(f"gold.{table.name}") as duck:
        keys = ", ".join(map(identifier, table.keys))
        if not asked(duck, f"count(*) = count(DISTINCT ({keys}))", content.sql):
            raise QualityFault(f"gold.{table.name}: a key ({', '.join(table.keys)}) comes twice; gold stays as it was")
        for column in (column for column in table.columns if column.total):
            assert column.total is not None
            one, name = column.total.table, column.total.column
            rows = table_version(job.settings.silver_path, job.upstream, one).sql
            total = asked(duck, f"coalesce(sum({identifier(name)}), 0)" if name else "count(*)", rows)
            if asked(duck, f"coalesce(sum({identifier(column.name)}), 0)", content.sql) != total:
                what = f"the sum of {name}" if name else "the rows"
                raise QualityFault(
                    f"gold.{table.name}: {column.name} does not add up to {what} of silver.{one.name}; a join lost or "
                    "multiplied rows, gold stays as it was"
                )


def _fits(job: Job, small: list[Table]) -> bool:
    """Whether tables, joined with each other, can be broadcast: a row of Spark's is eight bytes a column and texts."""
    size = 0
    for table in small:
        content = table_version(job.settings.silver_path, job.upstream, table)
        texts = [
            f"coalesce(sum(strlen({identifier(name)})), 0)" for name, kind in content.types.items() if kind == "string"
        ]
        with engine(f"silver.{table.name}") as duck:
            found = duck.execute(f"SELECT {' + '.join(['0', *texts])} FROM {content.sql}").fetchone() or (0,)
        size += int(found[0]) + 8 * len(content.types) * job.upstream.table(table.name).rows_out
    return TIMES * size + ELSE <= job.settings.spark.driver_bytes


@contextmanager
def _hints(spark: "SparkSession", followed: bool) -> Iterator[None]:
    """Whether Spark does what a transform's `F.broadcast` asks for, or joins as it would without."""
    spark.conf.set(NO_HINTS, str(not followed).lower())
    try:
        yield
    finally:
        spark.conf.unset(NO_HINTS)
