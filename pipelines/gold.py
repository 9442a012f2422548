"""Gold's job: tables that answer questions, built from silver's last complete run, each proved against its input."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from conf.contract import Table
from conf.settings import Settings
from pipelines import basis, lake
from pipelines.catalogue import Entry
from pipelines.content import stored
from pipelines.duck import HASHING, Engine, engine, evidence
from pipelines.errors import QualityFault
from pipelines.proof import Built, prove
from pipelines.records import Link, TableRun
from pipelines.report import Report
from pipelines.spark import read, write_files
from pipelines.sql import quoted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


# A broadcast of so many bytes takes some times that, beside what the JVM needs for all else (at 20 million movements).
TIMES, ELSE = 3.5, 512 * 2**20
NO_HINTS = "spark.sql.optimizer.disableHints"


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
    with _hints(spark, _fits(settings, link, [one for one in table.inputs if one != table.one_row_per])):
        rows = transformed(entry, inputs).observe(observed, F.count(F.lit(1)).alias("rows"))
        files = write_files(rows, path, link.call.run.run)
    count = observed.get["rows"]
    done = TableRun(table.name, 0, count, count, full_at=link.call.run.started, how=f"whole: {why}")
    built = Built(done, table, path, lake.schema_of(table, {}), files)
    built = prove(built, lake.types_of(table, {}), table.keys, count, {})
    if table.one_row_per:
        return like(settings, built, link, table.one_row_per)
    try:
        _add_up(settings, built, link)
    except BaseException:
        built.discard()
        raise
    return built


def _add_up(settings: Settings, built: Built, link: Link) -> None:
    """Raises QualityFault where a key comes twice, or a column's sum is not the total that its contract promises."""
    table, content = built.table, built.content

    def asked(duck: Engine, what: str, rows: str) -> object:
        found = duck.execute(f"SELECT {what} FROM {rows}").fetchone()
        return found[0] if found else None

    with engine(f"gold.{table.name}") as duck:
        keys = ", ".join(map(quoted, table.keys))
        if not asked(duck, f"count(*) = count(DISTINCT ({keys}))", content.sql):
            raise QualityFault(f"gold.{table.name}: a key ({', '.join(table.keys)}) comes twice; gold stays as it was")
        for column in (column for column in table.columns if column.total):
            assert column.total is not None
            one, name = column.total.table, column.total.column
            rows = stored(settings.silver_path, link.upstream, one).sql
            total = asked(duck, f"coalesce(sum({quoted(name)}), 0)" if name else "count(*)", rows)
            if asked(duck, f"coalesce(sum({quoted(column.name)}), 0)", content.sql) != total:
                what = f"the sum of {name}" if name else "the rows"
                raise QualityFault(
                    f"gold.{table.name}: {column.name} does not add up to {what} of silver.{one.name}; a join lost or "
                    "multiplied rows, gold stays as it was"
                )


def like(settings: Settings, built: Built, link: Link, origin: Table) -> Built:
    """`built`, if it has each row of `origin` once: as many, the same keys by their checksum, the same sums. Raises
    QualityFault otherwise."""
    table, upstream = built.table, link.upstream.table(origin.name)
    try:
        found = {column.name: column.checksum for column in built.done.columns}
        same = [found[own] for own in table.keys] == _checksums_of_keys(settings, link, origin)
        sums = {
            column.name: upstream.totals[column.made_from]
            for column in table.summed
            if column.made_from in upstream.totals
        }
        if built.done.rows_out != upstream.rows_out or not same:
            raise QualityFault(
                f"gold.{table.name}: {upstream.rows_out} rows of silver.{origin.name} became {built.done.rows_out}, or "
                "other ones; a join lost or multiplied rows, gold and the CSV stay as they were"
            )
        if wrong := [name for name, total in sums.items() if built.done.totals[name] != total]:
            raise QualityFault(
                f"gold.{table.name}: the sum of {wrong[0]} is not that of silver.{origin.name}; "
                "gold and the CSV stay as they were"
            )
        return replace(built, done=replace(built.done, rows_in=upstream.rows_out))
    except BaseException:
        built.discard()
        raise


def _checksums_of_keys(settings: Settings, link: Link, origin: Table) -> list[str]:
    """The checksums of an input's keys, as its run recorded them; made anew where another engine made those."""
    columns = link.upstream.table(origin.name).columns
    if link.upstream.hashing != HASHING:
        content = stored(settings.silver_path, link.upstream, origin)
        some = {name: content.types[name] for name in origin.keys}
        _, columns = evidence(f"silver.{origin.name}", content.sql, some, origin.keys)
    known = {column.name: column.checksum for column in columns}
    return [known[key] for key in origin.keys]


def _fits(settings: Settings, link: Link, small: list[Table]) -> bool:
    """Whether tables, joined with each other, can be broadcast: a row of Spark's is eight bytes a column and texts."""
    size = 0
    for table in small:
        content = stored(settings.silver_path, link.upstream, table)
        texts = [
            f"coalesce(sum(strlen({quoted(name)})), 0)" for name, kind in content.types.items() if kind == "string"
        ]
        with engine(f"silver.{table.name}") as duck:
            found = duck.execute(f"SELECT {' + '.join(['0', *texts])} FROM {content.sql}").fetchone() or (0,)
        size += int(found[0]) + 8 * len(content.types) * link.upstream.table(table.name).rows_out
    return TIMES * size + ELSE <= settings.spark.driver_bytes


@contextmanager
def _hints(spark: "SparkSession", followed: bool) -> Iterator[None]:
    """Whether Spark does what a transform's `F.broadcast` asks for, or joins as it would without."""
    spark.conf.set(NO_HINTS, str(not followed).lower())
    try:
        yield
    finally:
        spark.conf.unset(NO_HINTS)


def transformed(entry: Entry, inputs: dict[str, DataFrame]) -> DataFrame:
    assert entry.transform is not None
    return entry.transform(*inputs.values())
