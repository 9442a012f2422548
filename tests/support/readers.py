"""Tables as others read them, by path alone: all of a lake, and with filters that let a reader skip files by what the
log says of them."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extension_delta
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder, Schema
from pyspark.sql import SparkSession

from pipelines.core import catalogue
from pipelines.core.names import LAYERS
from pipelines.core.sql import duckdb_literal
from pipelines.lake import commits, delta, run_log
from pipelines.lake.checksums import Content, measured
from pipelines.lake.engine import Engine
from pipelines.lake.runs import TableRun
from pipelines.lake.schema import schema_of, writer_of
from pipelines.spark.remote import is_remote
from tests.support.lake import Lake

Reader = Callable[[Path], pa.Table]


def by_delta_rs(path: Path) -> pa.Table:
    # Not by to_pyarrow_table(): its threads can abort the process at its end.
    return pa.table(QueryBuilder().register("t", DeltaTable(path)).execute("SELECT * FROM t").read_all())


def by_duckdb(path: Path) -> pa.Table:
    return _with_delta().execute(f"FROM delta_scan({duckdb_literal(str(path))})").to_arrow_table()


@cache
def _with_delta() -> duckdb.DuckDBPyConnection:
    """A database that knows Delta by the extension of a package: nothing is downloaded."""
    (extension,) = Path(duckdb_extension_delta.__file__).parent.rglob("*.duckdb_extension")
    return duckdb.connect().execute(f"LOAD {duckdb_literal(str(extension))}")


def by_polars(path: Path) -> pa.Table:
    return pl.scan_delta(path).collect().to_arrow()


def by_spark(spark: SparkSession, path: Path) -> pa.Table:
    return spark.read.format("delta").load(str(path)).toArrow()


def readers(*sessions: SparkSession) -> dict[str, Reader]:
    """Readers of a table's folder, by name: three that need no session, and one of each session."""
    named = {"Sail" if is_remote(spark) else "Spark": partial(by_spark, spark) for spark in sessions}
    return {"delta-rs": by_delta_rs, "DuckDB": by_duckdb, "Polars": by_polars, **named}


def misread(lake: Lake, *sessions: SparkSession, with_log: bool = True) -> list[str]:
    """What readers find in the folders of all layers that the last runs did not record: other columns, another number
    of rows, another checksum or sum of a column; in the run log another number of rows. Empty when all is as recorded.
    """
    differing = []
    for layer in LAYERS:
        path, run = lake.settings().layer_path(layer), lake.last(layer)
        records = {name: len(run_log.read_rows(path / name, {})) for name in run_log.RECORDS if with_log}
        for reader, read in readers(*sessions).items():
            for table_run in run.tables:
                rows = read(path / lake.domain / table_run.name)
                for wrong in _not_recorded(rows, table_run, _keys(layer, lake.domain, table_run.name)):
                    differing.append(f"{reader}: {layer}.{table_run.name}: {wrong}")
            for name, recorded in records.items():
                if recorded and (seen := read(path / name).num_rows) != recorded:
                    differing.append(f"{reader}: {layer}.{name}: {seen} rows, not {recorded}")
    return differing


def _keys(layer: str, domain: str, name: str) -> tuple[str, ...]:
    table = catalogue.table_of(layer, domain, name)
    assert table is not None
    return table.keys


def _not_recorded(rows: pa.Table, table_run: TableRun, keys: tuple[str, ...]) -> list[str]:
    recorded = {column.name: column.type for column in table_run.columns}
    if rows.column_names != list(recorded):
        return [f"columns {rows.column_names}, not {list(recorded)}"]
    content = _content(rows, recorded, keys)
    if content.rows != table_run.rows_out:
        return [f"{content.rows} rows, not {table_run.rows_out}"]
    return [
        f"{seen}, not {true}" for seen, true in zip(content.columns, table_run.columns, strict=True) if seen != true
    ]


def _content(rows: pa.Table, types: Mapping[str, str], keys: tuple[str, ...]) -> Content:
    """What rows hold, measured as runs measure it."""
    with _with_delta().cursor() as connection, ThreadPoolExecutor(1) as thread:
        connection.register("seen", rows)
        return measured(Engine(connection, thread), "seen", types, keys)


def filters(column: str, rows: pa.Table, every: bool) -> Iterator[ds.Expression]:
    """Conditions on a column: null or not, and compared with its least value; with a greater one and the greatest."""
    field, values, kind = ds.field(column), rows[column].combine_chunks(), rows.schema.field(column).type
    yield from (field.is_null(), field.is_valid())
    present = values.drop_null()
    if pa.types.is_nested(kind) or not len(present):
        return
    ordered = present.take(pc.sort_indices(present))
    for value in (ordered[0], ordered[len(ordered) // 2], ordered[-1])[: 3 if every else 1]:
        yield from (field == value, field >= value)
        if every:
            yield from (field < value, field != value, field.isin(pa.array([value.as_py()], kind)))


def _plain(rows: pa.Table) -> pa.Table:
    """Rows whose texts can be filtered, whoever wrote them."""
    views = {field.name for field in rows.schema if pa.types.is_string_view(field.type)}
    return pa.table(
        {name: pc.cast(rows[name], pa.string()) if name in views else rows[name] for name in rows.column_names}
    )


def lost(path: Path, only: tuple[str, ...] = ()) -> list[str]:
    """The filters by which delta-rs finds other rows of a table than its files have."""
    table = DeltaTable(path)
    dataset = table.to_pyarrow_dataset()
    files = [str(path / name) for name in pa.table(table.get_add_actions())["path"].to_pylist()]
    if not files:
        return []
    parts = [pq.read_table(file, partitioning=None) for file in files]
    rows: Any = pa.concat_tables([_plain(part) for part in parts], promote_options="default")
    differing = []
    for column in only or rows.column_names:
        for condition in filters(column, rows, every=bool(only)):
            seen, there = dataset.to_table(filter=condition).num_rows, rows.filter(condition).num_rows
            if seen != there:
                differing.append(f"{path.name}: {condition}: {seen} of {there}")
        ours = (
            QueryBuilder().register("t", table).execute(f'SELECT * FROM t WHERE "{column}" IS NULL') if only else None
        )
        if ours is not None and pa.table(ours.read_all()).num_rows != rows[column].null_count:
            differing.append(f"{path.name}: {column} IS NULL")
    return differing


def written(path: Path, types: dict[str, str], *files: dict[str, list[Any]]) -> None:
    """A table of these files, whose log may have extremes of all columns."""
    schema, names = schema_of(types), [delta.part_name(1) for _ in files]
    delta.make_folder(path)
    for name, columns in zip(names, files, strict=True):
        batch = pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
        with writer_of(path / name, schema) as writer:
            writer.write_batch(batch)
    definition = commits.Definition(path.name, None, Schema.from_arrow(schema), tuple(types), delta.PROPERTIES)
    commits.write(path, definition, commits.appended("silver/1"), names, {})
