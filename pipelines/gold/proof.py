"""Proves a gold table against its input: the transform's rows, their keys and their sums."""

from dataclasses import replace

from pyspark.sql import DataFrame

from conf.contract import Table
from pipelines.core.catalogue import Entry
from pipelines.core.errors import QualityFault
from pipelines.lake.checksums import evidence
from pipelines.lake.engine import HASHING
from pipelines.lake.staging import StagedTable
from pipelines.lake.versions import table_version
from pipelines.spark.job import Job


def like(job: Job, built: StagedTable, origin: Table) -> StagedTable:
    """`built`, if it has each row of `origin` once: as many, the same keys by their checksum, the same sums. Raises
    QualityFault otherwise."""
    table, upstream = built.table, job.upstream.table(origin.name)
    try:
        found = {column.name: column.checksum for column in built.table_run.columns}
        same = [found[own] for own in table.keys] == _checksums_of_keys(job, origin)
        sums = {
            column.name: upstream.totals[column.made_from]
            for column in table.summed
            if column.made_from in upstream.totals
        }
        if built.table_run.rows_out != upstream.rows_out or not same:
            raise QualityFault(
                f"gold.{table.name}: {upstream.rows_out} rows of silver.{origin.name} became "
                f"{built.table_run.rows_out}, or other ones; "
                "a join lost or multiplied rows, gold and the CSV stay as they were"
            )
        if wrong := [name for name, total in sums.items() if built.table_run.totals[name] != total]:
            raise QualityFault(
                f"gold.{table.name}: the sum of {wrong[0]} is not that of silver.{origin.name}; "
                "gold and the CSV stay as they were"
            )
        return replace(built, table_run=replace(built.table_run, rows_in=upstream.rows_out))
    except BaseException:
        built.discard()
        raise


def _checksums_of_keys(job: Job, origin: Table) -> list[str]:
    """The checksums of an input's keys, as its run recorded them; made anew where another engine made those."""
    columns = job.upstream.table(origin.name).columns
    if job.upstream.hashing != HASHING:
        content = table_version(job.settings.silver_path, job.upstream, origin)
        some = {name: content.types[name] for name in origin.keys}
        _, columns = evidence(f"silver.{origin.name}", content.sql, some, origin.keys)
    known = {column.name: column.checksum for column in columns}
    return [known[key] for key in origin.keys]


def transformed(entry: Entry, inputs: dict[str, DataFrame]) -> DataFrame:
    assert entry.transform is not None
    return entry.transform(*inputs.values())
