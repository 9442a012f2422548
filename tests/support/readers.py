"""Tables as others read them: with filters that let a reader skip files by what the log says of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder, Schema

from pipelines.lake import commits, delta
from pipelines.lake.schema import schema_of, writer_of


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
