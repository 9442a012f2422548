"""Tables as others read them: with filters that let a reader skip files by what the log says of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable, QueryBuilder


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
            QueryBuilder().register("t", table).execute(f'SELECT id FROM t WHERE "{column}" IS NULL') if only else None
        )
        if ours is not None and pa.table(ours.read_all()).num_rows != rows[column].null_count:
            differing.append(f"{path.name}: {column} IS NULL")
    return differing
