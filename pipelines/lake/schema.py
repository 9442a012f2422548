"""The schema of a table and of its files: columns and their types, what the contract says of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.contract import Table
from pipelines.core.names import HISTORY, QUARANTINE
from pipelines.core.types import type_of


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a Spark SQL type name. Raises UsageFault."""
    function, *arguments = type_of(name).arrow
    if function == "list_":
        return pa.list_(arrow_type(str(arguments[0])))
    return getattr(pa, str(function))(*arguments)


def scaled(integers: pa.Array, kind: pa.Decimal128Type) -> pa.Array:
    """Unscaled 64-bit integers as the decimals that they stand for: the same bits, a type with a scale."""
    wide = pc.cast(integers, pa.decimal128(19, 0))
    return pa.Array.from_buffers(kind, len(wide), wide.buffers(), wide.null_count, wide.offset)


def writer_of(file: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of Parquet. Only texts get dictionaries: numbers and times seldom repeat enough to pay for them. Floats
    get no statistics: readers lose a NaN by them."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    compared = [field.name for field in schema if not pa.types.is_floating(field.type)]
    options: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "store_decimal_as_integer": True}
    return pq.ParquetWriter(file, schema, use_dictionary=texts, write_statistics=compared, **options)


def complete(columns: Mapping[str, pa.Array], schema: pa.Schema, rows: int, run: int) -> pa.RecordBatch:
    """Rows of bronze: columns that the source lacks are null, `_batch` is the run."""
    same = {field.name: run if field.name == "_batch" else None for field in schema}
    arrays = [
        columns[field.name] if field.name in columns else pa.repeat(pa.scalar(same[field.name], field.type), rows)
        for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)


# Of the columns that bronze, quarantine and history have in addition to the contract's.
COMMENTS = {
    "_rescued": "What a column could not hold: JSON, column to the source's text",
    "_extra": "What columns that no contract names had: JSON, column to text",
    "_source_file": "The file that the row came in",
    "_source_row": "The line of the file, 1 being the header",
    "_batch": "Bronze run that brought the row",
    "_reasons": "Why the row was set aside",
    "_valid_from": "Since when the source had the row so: the start of the bronze run that saw it (UTC)",
    "_valid_to": "Until when the source had the row so; null for the current version",
    "_current": "Whether this is the current version of the row",
}


def schema_of(types: Mapping[str, str]) -> pa.Schema:
    """The schema of a file with these columns (name to Spark SQL type)."""
    return pa.schema([(name, arrow_type(kind)) for name, kind in types.items()])


def promised(types: Mapping[str, str], table: Table, name: str) -> pa.Schema:
    """The columns of a table, or of what lies beside it under `name`, as the contract describes them: with comments,
    and NOT NULL where `required` says so."""
    comments, not_null = COMMENTS | {column.name: column.comment for column in table.columns}, required(table, name)

    def field(column: str, kind: str) -> pa.Field:
        comment = comments.get(column, "Copied from the source; no contract names it")
        return pa.field(column, arrow_type(kind), column not in not_null, {"comment": comment})

    return pa.schema([field(*column) for column in types.items()])


def required(table: Table, name: str) -> frozenset[str]:
    """The columns that are never null in a table, or in what lies beside it under `name`. Bronze and quarantine promise
    nothing: the source may have nulls anywhere. Older versions in a history may be of another contract."""
    if table.layer == "bronze" or name.endswith(QUARANTINE):
        return frozenset()
    if name.endswith(HISTORY):
        return frozenset((*table.keys, "_valid_from", "_current"))
    return frozenset(column.name for column in table.columns if column.key or not column.nullable)


def description(table: Table, name: str) -> str:
    """The comment of a table, or of what lies beside it under `name`."""
    if name.endswith(QUARANTINE):
        return f"Rows that {table.layer}.{table.name} lacks, with the reasons. One row per row set aside."
    if name.endswith(HISTORY):
        return f"Every version of the rows of {table.layer}.{table.name}. One row per version."
    return table.comment


def types_of(table: Table, more: Mapping[str, str]) -> dict[str, str]:
    """The contract's columns, then `more`: name to Spark SQL type."""
    return {column.name: column.type for column in table.columns} | dict(more)
