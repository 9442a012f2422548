"""The Spark session: local, quiet, in UTC, with the Delta jars that set-up checked."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import PROJECT, Settings
from pipelines import lake
from pipelines.errors import StorageFault, UsageFault

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

JARS = PROJECT / ".jars"
JAVA = ("17", "21")
LOG4J = {"quiet": "log4j2-quiet.properties", "debug": "log4j2-debug.properties"}


def configuration(settings: Settings, scratch: Path) -> dict[str, str]:
    """Spark's configuration. The user's own entries win."""
    jars = sorted(str(jar) for jar in JARS.glob("*.jar"))
    if not jars:
        raise UsageFault("the Delta jars are missing; run `make setup`")
    log4j = Path(__file__).with_name(LOG4J[settings.log])
    return {
        "spark.app.name": "lakehouse",
        "spark.master": settings.spark.master,
        "spark.driver.memory": settings.spark.driver_memory,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraClassPath": os.pathsep.join(jars),
        "spark.driver.extraJavaOptions": f"-Duser.timezone=UTC -Dlog4j2.configurationFile={log4j.as_uri()}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(max(4, 2 * (os.cpu_count() or 1))),
        "spark.databricks.delta.snapshotPartitions": "2",
        **settings.spark.conf,
    }


@contextmanager
def session(settings: Settings) -> Iterator["SparkSession"]:
    """A session whose JVM and scratch files end with the context. Raises UsageFault where Java does not start."""
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    os.environ.pop("SPARK_HOME", None)
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    with tempfile.TemporaryDirectory(prefix="lakehouse-", ignore_cleanup_errors=True) as scratch:
        builder = SparkSession.builder
        for name, value in configuration(settings, Path(scratch)).items():
            builder = builder.config(name, value)
        with _stderr_aside(settings.log == "quiet"):
            try:
                spark = builder.getOrCreate()
            except (PySparkException, Py4JError, OSError) as error:
                raise UsageFault(
                    "Spark does not start; check Java (17 or 21), LAKEHOUSE_SPARK__* and free memory; "
                    "LAKEHOUSE_LOG=debug shows its log"
                ) from error
        try:
            java = spark._jvm.java.lang.System.getProperty("java.specification.version")  # type: ignore[union-attr]
            if java not in JAVA:
                raise UsageFault(f"Java 17 or 21 is needed, this is {java}; point JAVA_HOME at one")
            yield spark
        finally:
            gateway = spark.sparkContext._gateway
            spark.stop()
            if gateway is not None:
                # The JVM ends when its standard input closes.
                gateway.shutdown()
                gateway.proc.stdin.close()
                gateway.proc.wait(20)


def read(spark: "SparkSession", path: Path, version: int) -> "DataFrame":
    """A Delta table as it was at `version`. Raises StorageFault where it is gone."""
    if lake.version(path) is None:
        raise StorageFault(f"table {path} is gone; restore it from a backup, or run its layer again")
    return spark.read.format("delta").option("versionAsOf", version).load(str(path))


def overwrite(frame: "DataFrame", path: Path, table: Table) -> int:
    """Makes `frame` the whole content of the table, comments from its contract. The version it left."""
    from pyspark.sql import functions as F

    comments = {column.name: column.comment for column in table.columns}
    commented = frame.select(
        *(F.col(name).alias(name, metadata={"comment": comments.get(name, "")}) for name in frame.columns)
    )
    lake.make_folder(path)
    lake.set_properties(path, table)
    writer = commented.write.format("delta").mode("overwrite").option("overwriteSchema", True)
    writer.options(**lake.properties(table)).save(str(path))
    version = lake.version(path)
    assert version is not None
    return version


@contextmanager
def storage_faults() -> Iterator[None]:
    """Turns what Spark says of a disk or a file into one StorageFault; the rest passes."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        said = str(error)
        if "No space left on device" in said:
            raise StorageFault("no space left on the disk of the lake or of the temporary folder") from error
        if any(mark in said for mark in ("FAILED_READ_FILE", "FileNotFoundException", "java.io.IOException")):
            file = re.search(r"file:(/[^\s,;]+)", said)
            named = file[1] if file else "a file of the lake"
            raise StorageFault(f"{named} cannot be read; restore it from a backup") from error
        raise


@contextmanager
def _stderr_aside(quiet: bool) -> Iterator[None]:
    """Lets a child that starts meanwhile write its banners to nowhere."""
    if not quiet:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
