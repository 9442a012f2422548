"""Small frames of given rows."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType


def frame_of(spark: SparkSession, schema: str, rows: Sequence[tuple[Any, ...]]) -> DataFrame:
    """Rows as a local relation; the schema in Spark's words. From a list Spark would make it with Python workers."""
    struct = StructType.fromDDL(schema)
    assert isinstance(struct, StructType)
    columns = zip(*rows, strict=True) if rows else ((),) * len(struct)
    arrow = to_arrow_schema(struct, timezone="UTC")
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, arrow, strict=True)]
    frame: DataFrame = spark.createDataFrame(pa.Table.from_arrays(arrays, schema=arrow), struct)
    return frame
