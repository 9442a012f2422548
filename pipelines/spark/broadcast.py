"""Whether a table fits into the JVM as what Spark sends to the other side of a join: a hash table, in one piece."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import SparkSession

from conf.settings import Settings
from pipelines.spark.remote import is_remote

OLD_SHARE = 2 / 3  # of a heap, what the parallel collector leaves for objects that are large or stay
# Measured: how far Spark packs rows that it collects, and what else there is while a hash table grows.
PACKED, JVM_BYTES, CORE_BYTES = 0.4, 192 * 2**20, 64 * 2**20
FIRST_PAGE = 2**20  # of a hash table's rows; a page that is full is copied to one of twice its size
ROW_BYTES = 16  # of a row, beside eight for a column: which values are null, and where the next row of its key is
SMALL_FILES = 20 * 2**20  # Spark broadcasts a table of half that size of its own accord


@dataclass(frozen=True)
class Size:
    """How large a table is: its rows, the bytes of a row in Spark, those of its files."""

    rows: int
    row_bytes: float
    file_bytes: int


def needed_bytes(tables: Sequence[Size]) -> float:
    """What the old generation must hold when the tables, joined to each other, are broadcast: a row has the columns of
    all, and there are as many as of the longest. The moment that needs most is when the last page is copied."""
    joined = Size(max(table.rows for table in tables), sum(table.row_bytes for table in tables), 0)
    inner = sorted(tables, key=lambda table: table.rows)[:-1]
    held = sum(_page(table) + _beside(table) for table in inner if table.file_bytes <= SMALL_FILES)
    return 1.5 * _page(joined) + _beside(joined) + held + JVM_BYTES + CORE_BYTES * (os.cpu_count() or 1)


def _page(table: Size) -> int:
    page = FIRST_PAGE
    while page < table.rows * (table.row_bytes + ROW_BYTES):
        page *= 2
    return page


def _beside(table: Size) -> float:
    """The index of the keys, and the rows as they were collected."""
    return (16 << table.rows.bit_length()) + PACKED * table.rows * (table.row_bytes + ROW_BYTES)


def available_bytes(settings: Settings, spark: SparkSession) -> float:
    """What the old generation holds, in the JVM of the driver and in those of executors, the least of them."""
    heap = settings.spark.driver_bytes
    if not is_remote(spark) and (java := spark._jvm):
        # A JVM does not count one of its two survivor spaces.
        heap = min(heap, int(java.java.lang.Runtime.getRuntime().maxMemory()) * 9 // 8)
        if not settings.spark.is_local:
            given = spark.sparkContext.getConf().get("spark.executor.memory", "1g")
            heap = min(heap, int(java.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(given)))
    return OLD_SHARE * heap
