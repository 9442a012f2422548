"""The Spark session: local, quiet, in UTC, with the Delta jars that set-up checked."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from conf.settings import PROJECT, Settings
from pipelines import lake
from pipelines.content import Content, folded
from pipelines.errors import StorageFault, UsageFault
from pipelines.signals import held_back
from pipelines.sql import backquoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

JARS = PROJECT / ".jars"
JAVA = ("17", "21")
STOP_SECONDS = 6
NO_MARK = "mapreduce.fileoutputcommitter.marksuccessfuljobs"
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
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
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
        heard = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        # Interrupted while it starts, PySpark leaves a JVM behind that nobody ends.
        with held_back(), _stderr_aside(settings.log == "quiet"):
            try:
                spark = builder.getOrCreate()
            except (PySparkException, Py4JError, OSError) as error:
                raise UsageFault(
                    "Spark does not start; check Java (17 or 21), LAKEHOUSE_SPARK__* and free memory; "
                    "LAKEHOUSE_LOG=debug shows its log"
                ) from error
        if threading.current_thread() is threading.main_thread() and heard:
            # PySpark's own handler asks the JVM in the middle of another question, and shows what comes of it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            java = spark._jvm.java.lang.System.getProperty("java.specification.version")  # type: ignore[union-attr]
            if java not in JAVA:
                raise UsageFault(f"Java 17 or 21 is needed, this is {java}; point JAVA_HOME at one")
            yield spark
        finally:
            _end(spark)


def _end(spark: "SparkSession") -> None:
    """Stops the session and its JVM, in whatever state they are, within STOP_SECONDS."""
    gateway = spark.sparkContext._gateway
    limit = time.monotonic() + STOP_SECONDS

    def stop() -> None:
        with suppress(Exception):  # the JVM may be gone
            spark.stop()
            if gateway is not None:
                gateway.shutdown()

    with held_back():
        stopping = threading.Thread(target=stop, daemon=True)
        stopping.start()
        stopping.join(STOP_SECONDS / 2)
        if gateway is not None:
            with suppress(OSError):
                gateway.proc.stdin.close()  # the JVM ends when its standard input closes
            try:
                gateway.proc.wait(max(1.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                gateway.proc.kill()
                gateway.proc.wait()


def read(spark: "SparkSession", content: Content) -> "DataFrame":
    """The rows that count of a version: the files that its log names. Raises StorageFault where one is gone."""
    frame = read_files(spark, list(content.files), content.types)
    if content.base is None:
        return frame
    view = f"lakehouse_{uuid.uuid4().hex}"
    frame.createTempView(view)
    try:
        return spark.sql(folded(view, tuple(content.types), content.keys, content.base, backquoted))
    finally:
        spark.catalog.dropTempView(view)


def read_files(spark: "SparkSession", files: list[str], types: Mapping[str, str]) -> "DataFrame":
    """Parquet files of columns (name to Spark SQL type), whether a commit names them or not yet."""
    schema = ", ".join(f"{backquoted(name)} {kind}" for name, kind in types.items())
    for file in files:
        if not Path(file).exists():
            raise StorageFault(f"{file} cannot be read; restore it from a backup")
    if not files:
        return spark.createDataFrame([], schema)
    return spark.read.schema(schema).parquet(*files)


def write_files(frame: "DataFrame", path: Path, run: int) -> list[str]:
    """Writes `frame` as Parquet files into the table's folder; a commit makes them its content. Their names."""
    lake.make_folder(path)
    with lake.scratch(path, "run") as half:
        return [file.rename(path / f"part-{run:05d}-{file.name}").name for file in write_parquet(frame, half)]


def write_parquet(frame: "DataFrame", folder: Path) -> list[Path]:
    """Writes `frame` as Parquet files into a folder; those that have rows."""
    frame.write.mode("append").option(NO_MARK, False).parquet(str(folder), compression="zstd")
    with lake.storage(f"folder {folder}"):
        return sorted(file for file in folder.glob("*.parquet") if pq.read_metadata(file).num_rows)


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
