"""The contracts' types as Arrow has them."""

import pyarrow as pa

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
