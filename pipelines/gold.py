"""Gold's job: tables that answer questions, built from silver's last complete run, each proved against its input."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from conf.contract import Table
from conf.settings import Settings
from pipelines import basis, lake
from pipelines.catalogue import Entry
from pipelines.content import stored
from pipelines.errors import QualityFault
from pipelines.proof import Built, prove
from pipelines.records import Link, TableRun
from pipelines.report import Report
from pipelines.spark import read, write_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def fingerprint(key: str) -> list[Column]:
    """Rows, and the sum of the keys' hashes: equal on both sides means no row was lost and none came twice."""
    return [F.count(F.lit(1)).alias("rows"), F.sum(F.xxhash64(key).cast("decimal(38,0)")).alias("keys")]


def build(
    settings: Settings,
    started: "Callable[[], SparkSession]",
    link: Link,
    entries: tuple[Entry, ...],
    report: Report,
) -> Iterator[Built]:
    """Builds the tables. Raises QualityFault where a join lost or multiplied a row, or a cent."""
    from pipelines.follow_gold import follow

    for entry in entries:
        began, table = time.monotonic(), entry.table
        report.progress("gold", table.name, 0)
        why = basis.derived(settings, link.call, link.origin, table.name)
        built = None
        with lake.scratch(settings.gold_path, "run") as folder:
            if not why:
                built = follow(settings, started, link, entry, folder)
        built = built or _whole(settings, started(), link, entry, why or basis.MUCH)
        yield replace(built, done=replace(built.done, seconds=time.monotonic() - began))


def _whole(settings: Settings, spark: "SparkSession", link: Link, entry: Entry, why: str) -> Built:
    """All rows of a table, whatever its last version has."""
    table, upstream = entry.table, link.upstream
    inputs = {one.module: read(spark, stored(settings.silver_path, upstream, one)) for one in table.inputs}
    observed = Observation(table.name)
    path = lake.table_path(settings.gold_path, table)
    files = write_files(
        transformed(entry, inputs).observe(observed, *fingerprint(table.keys[0])), path, link.call.run.run
    )
    found = observed.get
    done = TableRun(table.name, 0, found["rows"], found["rows"], full_at=link.call.run.started, how=f"whole: {why}")
    built = Built(done, table, path, lake.schema_of(table, {}), files)
    totals: dict[str, Decimal] = {}
    if origin := table.one_row_per:
        try:
            expected = inputs[origin.module].agg(*fingerprint(origin.keys[0])).first()
            same_rows(table, origin, expected, found)
            if upstream.table(origin.name).rows_out != found["rows"]:
                raise _lost(table, origin, upstream.table(origin.name).rows_out, found["rows"])
        except BaseException:
            built.discard()
            raise
        totals = conserved(table, upstream.table(origin.name))
    return prove(built, lake.types_of(table, {}), table.keys, found["rows"], totals)


def same_rows(table: Table, origin: Table, expected: Any, found: Any) -> None:
    """Raises QualityFault unless fingerprints of rows of `origin` and of what became of them are of the same keys."""
    if (expected["rows"], expected["keys"]) != (found["rows"], found["keys"]):
        raise _lost(table, origin, expected["rows"], found["rows"])


def _lost(table: Table, origin: Table, expected: int, found: int) -> QualityFault:
    return QualityFault(
        f"gold.{table.name}: {expected} rows of silver.{origin.name} became {found}, or other ones; "
        "a join lost or multiplied rows, gold and the CSV stay as they were"
    )


def transformed(entry: Entry, inputs: dict[str, DataFrame]) -> DataFrame:
    assert entry.transform is not None
    return entry.transform(*inputs.values())


def conserved(table: Table, origin: TableRun) -> dict[str, Decimal]:
    """The sums that a table of one row per row of `origin` takes over, by its own columns' names."""
    return {
        column.name: origin.totals[column.made_from] for column in table.summed if column.made_from in origin.totals
    }
