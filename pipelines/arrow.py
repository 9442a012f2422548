"""The contracts' types as Arrow has them, and how they are written to Parquet."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.contract import DECIMAL

ARROW = {
    "boolean": pa.bool_(),
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp_ntz": pa.timestamp("us"),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a Spark SQL type name."""
    if name.startswith("array<"):
        return pa.list_(arrow_type(name[len("array<") : -1]))
    match = DECIMAL.fullmatch(name)
    return pa.decimal128(int(match[1]), int(match[2])) if match else ARROW[name]


def scaled(integers: pa.Array, kind: pa.Decimal128Type) -> pa.Array:
    """Unscaled 64-bit integers as the decimals that they stand for: the same bits, a type with a scale."""
    wide = pc.cast(integers, pa.decimal128(19, 0))
    return pa.Array.from_buffers(kind, len(wide), wide.buffers(), wide.null_count, wide.offset)


def writer_of(file: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Dictionaries for texts only: numbers and times seldom repeat enough to pay for the look-up."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetWriter(
        file, schema, compression="zstd", compression_level=1, use_dictionary=texts, store_decimal_as_integer=True
    )
