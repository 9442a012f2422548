"""Silver's job: each bronze table through its transform and its checks, into the accepted rows and the quarantine."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from conf.contract import Table
from conf.settings import Settings
from pipelines import lake, quality
from pipelines.catalogue import Entry
from pipelines.errors import QualityFault
from pipelines.lake import QUARANTINE, Run, TableRun
from pipelines.report import Report
from pipelines.spark import overwrite, read

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def current(spark: "SparkSession", bronze_path: Path, table: Table, run: Run) -> DataFrame:
    """A bronze table as the source had it when `run` read it."""
    return read(spark, lake.table_path(bronze_path, table), run.table(table.name).version)


def build(
    settings: Settings, spark: "SparkSession", upstream: Run, entries: tuple[Entry, ...], report: Report
) -> Iterator[TableRun]:
    """Builds the tables, parents first; of each, what became of it and of its quarantine."""
    done: dict[str, TableRun] = {}
    for entry in entries:
        for result in _build_table(settings, spark, upstream, entry, done, report):
            done[result.name] = result
            yield result


def _build_table(
    settings: Settings, spark: "SparkSession", upstream: Run, entry: Entry, done: dict[str, TableRun], report: Report
) -> Iterator[TableRun]:
    started, table = time.monotonic(), entry.table
    assert entry.transform is not None
    report.progress("silver", table.name, 0)
    typed = entry.transform(*(current(spark, settings.bronze_path, one, upstream) for one in table.inputs))
    folded = quality.fold_copies(typed, table.keys) if _has_double_keys(typed, table) else quality.without_copies(typed)
    parents = {
        column.name: _parents(settings, spark, reference.table, reference.columns, done)
        for column, reference in table.references
    }
    judged = quality.judge(folded, table, parents)

    observed = Observation(table.name)
    good = quality.accepted(judged.observe(observed, *quality.counts(table)), table)
    if settings.card_numbers == "masked":
        good = quality.mask_cards(good, table)
    version = overwrite(good, lake.table_path(settings.silver_path, table), table)
    found = {name: count or 0 for name, count in observed.get.items()}  # a sum over no rows is null

    path = lake.table_path(settings.silver_path, table, QUARANTINE)
    if found["set_aside"]:
        aside_version = overwrite(quality.quarantined(judged, table, upstream.run), path, table)
    else:
        aside_version = lake.empty(path, table, quality.QUARANTINE_COLUMNS)

    conserve(table, upstream, found, lake.count_rows(path, aside_version))
    rows = {name: found[name] for name in ("rows_in", "rows_out", "set_aside", "copies")}
    yield TableRun(table.name, version, **rows, seconds=time.monotonic() - started)
    yield TableRun(table.name + QUARANTINE, aside_version, rows_in=found["set_aside"], rows_out=found["set_aside"])
    _say(spark, table, found, path, aside_version, report)


def _has_double_keys(typed: DataFrame, table: Table) -> bool:
    """Whether a key comes twice; a missing one counts as a key, too."""
    rows, keys = typed.agg(F.count(F.lit(1)), F.count_distinct(F.struct(*table.keys))).first() or (0, 0)
    return bool(rows != keys)


def _parents(
    settings: Settings, spark: "SparkSession", parent: Table, carried: tuple[str, ...], done: dict[str, TableRun]
) -> DataFrame:
    def written(name: str) -> DataFrame:
        return read(spark, settings.silver_path / parent.domain / name, done[name].version)

    aside = parent.name + QUARANTINE
    return quality.parents(
        written(parent.name), written(aside) if done[aside].rows_out else None, parent.keys[0], carried
    )


def conserve(table: Table, upstream: Run, found: dict[str, int], quarantined: int) -> None:
    """Rows in = accepted + quarantined + identical copies; raises QualityFault otherwise."""
    read_rows = sum(upstream.table(one.name).rows_out for one in table.inputs)
    accounted = found["rows_out"] + found["set_aside"] + found["copies"]
    if not read_rows == found["rows_in"] == accounted or quarantined != found["set_aside"]:
        raise QualityFault(
            f"silver.{table.name}: {read_rows} rows in bronze, {found['rows_in']} read, {accounted} accounted for, "
            f"{quarantined} of {found['set_aside']} in quarantine; silver was left as it was, run it again"
        )


def _say(spark: "SparkSession", table: Table, found: dict[str, int], path: Path, version: int, report: Report) -> None:
    """What a person should know of the table: set aside, by reason; copies; warnings."""
    if found["set_aside"]:
        reasons = (
            read(spark, path, version)
            .select(F.explode("_reasons").alias("reason"))
            .groupBy("reason")
            .count()
            .orderBy("reason")
        )
        listed = ", ".join(f"{row['reason']} {row['count']:,}" for row in reasons.collect())
        report.warning(
            f"silver.{table.name}: {found['set_aside']:,} rows set aside in silver.{table.name}{QUARANTINE}: {listed}"
        )
    if found["copies"]:
        report.warning(f"silver.{table.name}: {found['copies']:,} identical copies counted once")
    for index, name in enumerate(quality.warning_names(table)):
        if failed := found[f"warning_{index}"]:
            report.warning(f"silver.{table.name}: {failed:,} of {found['rows_out']:,} rows do not meet: {name}")
