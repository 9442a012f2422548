"""Frames in and out of Parquet files."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from pipelines.core.errors import StorageFault
from pipelines.core.points import Point, crash_point
from pipelines.core.sql import spark_identifier
from pipelines.lake import delta, folders
from pipelines.lake.versions import TableVersion, latest_rows


def read(spark: SparkSession, content: TableVersion) -> DataFrame:
    """The rows of a table's version. Raises StorageFault if a file is gone."""
    frame = read_files(spark, list(content.files), content.stored)
    if content.base is None:
        return frame

    def quote(name: str) -> str:
        return spark_identifier(name).replace("{", "{{").replace("}", "}}")

    return spark.sql(latest_rows("{raw}", content, content.base, quote), raw=frame)


def read_files(spark: SparkSession, files: list[str], types: Mapping[str, str]) -> DataFrame:
    """Parquet files with these columns (name to Spark SQL type). Raises StorageFault if one is gone."""
    schema = ", ".join(f"{spark_identifier(name)} {kind}" for name, kind in types.items())
    for file in files:
        if not Path(file).exists():
            raise StorageFault(f"{file} cannot be read; restore it from a backup")
    if not files:  # a Python list's frame would start Python workers, and be of a size that Spark does not know
        nothing = ", ".join(f"CAST(NULL AS {kind}) AS {spark_identifier(name)}" for name, kind in types.items())
        return spark.sql(f"SELECT {nothing} WHERE false")
    return spark.read.schema(schema).parquet(*files)


def write_files(frame: DataFrame, path: Path, run: int) -> list[str]:
    """Writes a frame as Parquet files into a table's folder, for a commit to name. Returns the names of the files."""
    delta.make_folder(path)
    with folders.scratch(path, "run") as half:
        written = write_parquet(frame, half)
        crash_point(Point.SPARK_WROTE)
        return [Path(file).rename(path / f"part-{run:05d}-{Path(file).name}").name for file in written]


def write_parquet(frame: DataFrame, folder: Path) -> list[str]:
    """Writes a frame as Parquet files into a folder. Returns those that have rows.

    Only texts get dictionaries, because numbers seldom repeat. Texts get no statistics, because no reader skips by one,
    nor do floats, by which readers lose a NaN. Dictionaries are small, so that they are given up early if each row has
    another text.
    """
    options = {"parquet.compression.codec.zstd.level": "1", "parquet.dictionary.page.size": "262144"}
    options["mapreduce.fileoutputcommitter.marksuccessfuljobs"] = "false"
    for name, kind in frame.dtypes:
        if kind in ("string", "float", "double"):
            options[f"parquet.column.statistics.enabled#{name}"] = "false"
        if kind != "string":
            options[f"parquet.enable.dictionary#{name}"] = "false"
    frame.write.mode("append").options(**options).parquet(str(folder), compression="zstd")
    with folders.storage(f"folder {folder}"):
        return sorted(str(file) for file in folder.glob("*.parquet") if pq.read_metadata(file).num_rows)
