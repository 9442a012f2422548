"""What Spark's own session and a server of Spark Connect do in different ways."""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

from pyspark.sql import Column, DataFrame, Observation, Row, SparkSession
from pyspark.sql import functions as F


def is_remote(thing: SparkSession | DataFrame) -> bool:
    """Whether a session or a frame asks a server by Spark Connect, and not the JVM of this process."""
    return ".connect." in type(thing).__module__


def counted(frame: DataFrame, *columns: Column) -> tuple[DataFrame, Callable[[], dict[str, Any]]]:
    """The same rows, and a function that returns aggregates of them after whatever action reads them.

    Not every Spark Connect server can observe a query; there the rows, which do not change, are counted by another.
    """
    if is_remote(frame):
        return frame, lambda: frame.agg(*columns).collect()[0].asDict()
    observation = Observation()
    return frame.observe(observation, *columns), lambda: observation.get


def least(frame: DataFrame, key: Sequence[str], conditions: list[Column], number: int) -> list[list[Row]]:
    """For each condition, the least keys of the rows that meet it, so many at most; parts of a key may be null."""
    if is_remote(frame):  # not every server knows a minimum of several rows
        return [
            frame.where(condition).select(*key).distinct().orderBy(*key).limit(number).collect()
            for condition in conditions
        ]
    ordered = F.struct(*key)
    columns = [
        F.array_distinct(F.min_by(F.when(condition, ordered), F.when(condition, ordered), number)).alias(f"k{index}")
        for index, condition in enumerate(conditions)
    ]
    (row,) = frame.where(reduce(or_, conditions)).agg(*columns).collect()
    return [keys or [] for keys in row]
