"""Proves a gold table against its input: the transform's rows, their keys and their sums."""

from dataclasses import replace

from conf.contract import Table
from pipelines.core.contracts import file_of
from pipelines.core.errors import QualityFault
from pipelines.core.sql import identifier
from pipelines.lake.checksums import evidence
from pipelines.lake.engine import HASHING, Engine, engine
from pipelines.lake.runs import Job
from pipelines.lake.versions import StagedTable, table_version


def prove_one_row_per(job: Job, built: StagedTable) -> StagedTable:
    """`built` with its `rows_in`, if it has each row of `one_row_per` once: as many, the same keys by their checksum,
    the same sums. Raises QualityFault otherwise."""
    table, origin = built.table, built.table.one_row_per
    assert origin is not None
    upstream = job.upstream.table(origin.name)
    checksums = {column.name: column.checksum for column in built.table_run.columns}
    same_keys = [checksums[key] for key in table.keys] == _checksums_of_keys(job, origin)
    if built.table_run.rows_out != upstream.rows_out or not same_keys:
        change = f"{upstream.rows_out} rows of silver.{origin.name} became {built.table_run.rows_out}"
        join = f"a join lost or multiplied rows in {file_of(table.module)}"
        text = f"{change}, or other ones; {join}, gold and the CSV stay as they were"
        raise QualityFault(f"gold.{table.name}: {text}")
    for column in table.summed:
        total = upstream.totals.get(column.made_from)
        if total is not None and built.table_run.totals[column.name] != total:
            problem = f"the sum of {column.name} is not that of silver.{origin.name}"
            raise QualityFault(f"gold.{table.name}: {problem}; gold and the CSV stay as they were")
    return replace(built, table_run=replace(built.table_run, rows_in=upstream.rows_out))


def prove_totals(job: Job, built: StagedTable) -> StagedTable:
    """`built`, if no key comes twice and each column adds up to the total that its contract promises. Raises
    QualityFault otherwise."""
    table, rows = built.table, built.content.sql
    with engine(f"gold.{table.name}") as db:
        if not _value(db, f"SELECT count(*) = count(DISTINCT ({', '.join(map(identifier, table.keys))})) FROM {rows}"):
            raise QualityFault(f"gold.{table.name}: a key ({', '.join(table.keys)}) comes twice; gold stays as it was")
        for column in table.columns:
            if column.total is None:
                continue
            source, name = column.total.table, column.total.column
            expected = f"coalesce(sum({identifier(name)}), 0)" if name else "count(*)"
            silver = table_version(job.settings.silver_path, job.upstream, source).sql
            total = _value(db, f"SELECT coalesce(sum({identifier(column.name)}), 0) FROM {rows}")
            if total != _value(db, f"SELECT {expected} FROM {silver}"):
                what = f"the sum of {name}" if name else "the rows"
                problem = (
                    f"{column.name} does not add up to {what} of silver.{source.name}; "
                    f"a join lost or multiplied rows in {file_of(table.module)}"
                )
                raise QualityFault(f"gold.{table.name}: {problem}, gold stays as it was")
    return built


def _value(db: Engine, sql: str) -> object:
    row = db.execute(sql).fetchone()
    return row[0] if row else None


def _checksums_of_keys(job: Job, origin: Table) -> list[str]:
    """The checksums of an input's keys, as its run recorded them; made anew if another engine made those."""
    columns = job.upstream.table(origin.name).columns
    if job.upstream.hashing != HASHING:
        content = table_version(job.settings.silver_path, job.upstream, origin)
        types = {name: content.types[name] for name in origin.keys}
        _, columns = evidence(f"silver.{origin.name}", content.sql, types, origin.keys)
    checksums = {column.name: column.checksum for column in columns}
    return [checksums[key] for key in origin.keys]
