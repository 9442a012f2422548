"""What a Spark cluster must provide, checked when a session starts."""

import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from conf.settings import Postgres, Settings
from pipelines.core import identity
from pipelines.core.errors import ClusterFault, Fault
from pipelines.core.names import LAYERS
from pipelines.lake import folders as lake_folders
from pipelines.spark import worker

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession


EXECUTOR_READERS = 16  # connections that executors have to the source, at most

EXECUTOR_SECONDS = 60  # that a session waits without an executor

LOOK_SECONDS = 1  # between two looks at the executors

CALM_SECONDS = 1  # if no executor comes in that time, all are there

PACKAGES = ("pyspark", "pyarrow", "adbc-driver-manager", "adbc-driver-postgresql", "psycopg2-binary")

JAVA_IS = "java_method('java.lang.System', 'getProperty', 'java.specification.version')"


def require_answer(master: str) -> None:
    """Raises ClusterFault if nobody listens at the address of a standalone master."""
    problem = ""
    for host, port in re.findall(r"([^/,:]+):([0-9]+)", master) if master.startswith("spark://") else ():
        try:
            socket.create_connection((host, int(port)), worker.CONNECT_SECONDS).close()
            return
        except OSError as error:
            problem = error.strerror or str(error)
    if problem:
        raise ClusterFault(f"{master} does not answer ({problem}); start it, or correct LAKEHOUSE_SPARK__MASTER")


@contextmanager
def watched(spark: "SparkSession", settings: Settings) -> Iterator[None]:
    """Executors that have what a run needs; without one for a minute, its work is cancelled. Raises ClusterFault."""
    context, master = spark.sparkContext, settings.spark.master
    lost, ended = threading.Event(), threading.Event()

    def look() -> None:
        seen = time.monotonic()
        with suppress(Exception):  # the JVM may end first
            while not ended.wait(LOOK_SECONDS):
                if _executors(context):
                    lost.clear()
                    seen = time.monotonic()
                elif not context.statusTracker().getActiveJobsIds():
                    seen = time.monotonic()
                elif time.monotonic() - seen > EXECUTOR_SECONDS:
                    lost.set()
                    context.cancelAllJobs()

    threading.Thread(target=look, name="cluster", daemon=True).start()
    try:
        _wait(context, master)
        _check(spark, settings)
        if "spark.sql.shuffle.partitions" not in settings.spark.conf:
            spark.conf.set("spark.sql.shuffle.partitions", str(max(4, 2 * context.defaultParallelism)))
        yield
    except Exception as error:
        if lost.is_set() and not isinstance(error, Fault):
            raise ClusterFault(
                f"{master} had no executor for {EXECUTOR_SECONDS} s; start its workers, then run it again"
            ) from error
        raise
    finally:
        ended.set()


def _executors(context: "SparkContext") -> int:
    assert context._jsc is not None
    return int(context._jsc.sc().getExecutorMemoryStatus().size()) - 1


def _wait(context: "SparkContext", master: str) -> None:
    """Waits until executors have come, and no more come. Raises ClusterFault if none comes."""
    until, came, calm = time.monotonic() + EXECUTOR_SECONDS, 0, time.monotonic()
    while not came or time.monotonic() - calm < CALM_SECONDS:
        if (now := _executors(context)) != came:
            came, calm = now, time.monotonic()
        if not came and time.monotonic() > until:
            memory = context.getConf().get("spark.executor.memory")
            raise ClusterFault(
                f"{master} gave no executor in {EXECUTOR_SECONDS} s; one needs a free core and {memory} of memory: "
                "free them, or set spark.executor.memory in LAKEHOUSE_SPARK__CONF"
            )
        time.sleep(CALM_SECONDS / 10)


def _check(spark: "SparkSession", settings: Settings) -> None:
    """Asks each executor whether it has what a run needs. Raises ClusterFault naming all that is missing."""
    from pyspark.errors import PySparkException

    context, master = spark.sparkContext, settings.spark.master
    slots = max(context.defaultParallelism, 2 * _executors(context))
    if lacking := _lacking(context, settings, slots):
        raise ClusterFault(f"{master}: {'; '.join(lacking)}")
    try:
        javas = spark.range(0, slots, 1, slots).selectExpr(f"{JAVA_IS} AS java").distinct().collect()
    except PySparkException as error:
        raise ClusterFault(f"{master}: its workers cannot run a query; they need Spark {version('pyspark')}") from error
    if wrong := sorted({row.java for row in javas} - {"17", "21"}):
        raise ClusterFault(f"{master}: its workers run Java {', '.join(wrong)}; point their JAVA_HOME at 17 or 21")


def _lacking(context: "SparkContext", settings: Settings, slots: int) -> list[str]:
    """What workers lack, each thing once, and folders of their own that have the same path as the lake's."""
    from pyspark import cloudpickle

    server = settings.postgres
    source = (server.keywords.get("hostaddr", server.host), server.port) if server else None
    paths = [path for path in map(settings.layer_path, LAYERS) if (path / lake_folders.LOCK).exists()]
    with ExitStack() as stack:
        folders = [stack.enter_context(lake_folders.scratch(path, "probe")) for path in paths]
        for folder in folders:
            (folder / worker.DRIVER_MARK).touch()
        packages, software = {name: version(name) for name in PACKAGES}, identity.software("")
        needs = packages, software, tuple(map(str, folders)), source
        cloudpickle.register_pickle_by_value(worker)  # type: ignore[no-untyped-call]
        try:
            with jobs(settings.spark.master):
                tasks = context.parallelize(range(slots), slots)
                answers = tasks.map(lambda _: worker.missing_on_worker(*needs)).collect()
        finally:
            cloudpickle.unregister_pickle_by_value(worker)  # type: ignore[no-untyped-call]
        lacking = {f"worker {host} {text}" for host, texts in answers for text in texts}
        for folder in () if lacking else folders:
            unseen = sorted({host for host, _ in answers if not (folder / host).exists()})
            lacking |= {f"worker {host} has a {folder.parent} of its own: share the driver's" for host in unseen}
    return sorted(lacking)


# What a worker lacks, by the text of Spark's error.
LACKS = {
    'Cannot run program "([^"]+)"': "a worker has no {}: install the same Python and packages there",
    "PYTHON_VERSION_MISMATCH": f"a worker's Python is not {'.'.join(map(str, sys.version_info[:2]))}, as the driver's",
    "No module named '([^']+)'": "a worker's Python lacks {}: install requirements/run.txt and this project there",
}


@contextmanager
def jobs(master: str) -> Iterator[None]:
    """Turns Spark's errors about Python on its workers into one ClusterFault; other errors pass."""
    from py4j.protocol import Py4JError

    try:
        yield
    except Py4JError as error:
        text = str(error)
        for sign, lacks in LACKS.items():
            if match := re.search(sign, text):
                theirs = "name theirs as spark.pyspark.python in LAKEHOUSE_SPARK__CONF"
                raise ClusterFault(f"{master}: {lacks.format(*match.groups())}, or {theirs}") from error
        if fault := executors_lost(text):
            raise fault from error
        raise


def executors_lost(text: str) -> ClusterFault | None:
    """The fault for an error of Spark that lost the executors of a task, or their data, again and again; else None."""
    if not re.search("ExecutorLostFailure|FetchFailed|Failed to get broadcast|Failed to connect to", text):
        return None
    code = re.search("exited with code ([0-9]+)", text)
    why = f" (code {code[1]})" if code else ""
    return ClusterFault(
        f"executors were lost{why}; their workers' logs say why: if memory was short, raise spark.executor.memory "
        "in LAKEHOUSE_SPARK__CONF, then run it again"
    )


def unencrypted_warning(spark: "SparkSession", server: Postgres) -> str:
    """A warning if anybody on the network can read the source's password on its way to the workers; else empty."""
    conf = spark.sparkContext.getConf()
    hidden = all(conf.get(name) == "true" for name in ("spark.authenticate", "spark.network.crypto.enabled"))
    if not {"password", "sslpassword"} & {*server.keywords} or hidden or conf.get("spark.ssl.rpc.enabled") == "true":
        return ""
    return (
        f"{conf.get('spark.master')}: the password of {server.address} goes to its workers in clear; set "
        "spark.authenticate and spark.network.crypto.enabled"
    )
