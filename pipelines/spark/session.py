"""The Spark session: here or on a cluster, quiet, in UTC, with the Delta jars that set-up checked; a lazy one, too."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.settings import MIN_DRIVER_BYTES, PROJECT, Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.identity import NAME, application_name
from pipelines.core.names import LAYERS
from pipelines.core.signals import children_ignore_signals, deferred_signals
from pipelines.lake import folders, run_log
from pipelines.lake.runs import Mode
from pipelines.spark import class_data_archive
from pipelines.spark import cluster as spark_cluster

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway
    from pyspark.sql import SparkSession


Process = subprocess.Popen[bytes]

JAVA = ("17", "21")
LOOPBACK = "127.0.0.1"
SAME_EVERYWHERE = ("-Duser.timezone=UTC", "-Duser.language=en")  # in every JVM: the results of functions depend on them
STOP_SECONDS = 6
FEW_ROWS = 2_500_000  # for which compiling well costs more than it gains
EXECUTOR_DEFAULTS = "spark.executor.defaultJavaOptions"
DEFAULTS = "spark.driver.defaultJavaOptions"
DELTA = "io.delta.sql.DeltaSparkSessionExtension"
# What the results of a run depend on, in any session.
SQL_NEEDS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.files.maxPartitionBytes": "16m",  # a file a task: rows stay in the order of their keys
}


def configuration(settings: Settings) -> dict[str, str]:
    """Spark's configuration. The user's entries win; Java takes the later options. Raises UsageFault without jars."""
    jars = sorted(str(jar) for jar in class_data_archive.JARS.glob("*.jar"))
    if not jars:
        raise UsageFault("the Delta jars are missing; run `make setup`")
    log4j = Path(__file__).with_name(f"log4j2-{settings.log}.properties")
    defaults = settings.spark.conf.get(DEFAULTS, "")
    given = [defaults, settings.spark.conf.get("spark.driver.extraJavaOptions", "")]
    given += [os.environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")]
    collector = "" if re.search(r"-XX:\+Use\w+GC\b", " ".join(given)) else "-XX:+UseParallelGC"  # Java takes only one
    ours = (*SAME_EVERYWHERE, f"-Dlog4j2.configurationFile={log4j.as_uri()}")
    executors = {  # what they get from the driver: jars, the folder of this software, the name of their connections
        "spark.jars": ",".join(jars),
        "spark.executor.memory": settings.spark.driver_memory or f"{MIN_DRIVER_BYTES >> 20}m",
        "spark.executorEnv.PYTHONPATH": str(PROJECT),
        f"spark.executorEnv.{NAME}": application_name(settings.postgres),
    }
    this_machine = {  # only we talk to the JVM: it makes the secrets itself, no command line has them
        "spark.driver.host": LOOPBACK,
        "spark.driver.bindAddress": LOOPBACK,
        "spark.authenticate": "true",
        "spark.io.encryption.enabled": "true",
    }
    return {
        "spark.app.name": "lakehouse",
        "spark.master": settings.spark.master,
        "spark.driver.memory": f"{settings.spark.driver_bytes >> 20}m",
        "spark.driver.extraClassPath": os.pathsep.join(jars),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.extensions": DELTA,
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        **SQL_NEEDS,
        "spark.sql.icu.caseMappings.enabled": "false",  # its tables cost a second; Java knows the same letters
        "spark.python.sql.dataFrameDebugging.enabled": "false",  # three times as many calls of the JVM, errors as JSON
        "spark.buffer.pageSize": "2m",  # a hash table of a few rows would take 64
        "spark.sql.shuffle.partitions": str(max(4, 2 * (os.cpu_count() or 1))),
        "spark.databricks.delta.snapshotPartitions": "2",
        **(this_machine if settings.spark.is_local else executors),
        **settings.spark.conf,
        DEFAULTS: " ".join(filter(None, (*ours, collector, class_data_archive.options(), defaults))),
        EXECUTOR_DEFAULTS: " ".join([*SAME_EVERYWHERE, settings.spark.conf.get(EXECUTOR_DEFAULTS, "")]),
    }


@contextmanager
def session(
    settings: Settings, stop_seconds: float = STOP_SECONDS, launched: Callable[[Process], object] = lambda _: None
) -> Iterator["SparkSession"]:
    """A session whose JVM and scratch files end with the context, the JVM within `stop_seconds`. `launched` gets the
    JVM and may kill it. Raises UsageFault if Java does not start, MemoryFault if memory is short, ClusterFault if the
    cluster lacks something."""
    os.environ["PYSPARK_PYTHON"] = settings.spark.conf.get("spark.pyspark.python", sys.executable)
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if settings.spark.is_local:
        os.environ["SPARK_LOCAL_IP"] = LOOPBACK
    else:
        spark_cluster.require_answer(settings.spark.master)
    os.environ.pop("SPARK_HOME", None)
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    from pipelines.spark import faults

    with folders.temporary() as scratch:
        places = {"spark.local.dir": str(scratch), "spark.sql.warehouse.dir": str(scratch / "warehouse")}
        given = places | configuration(settings)
        given[DEFAULTS] = f"{shlex.quote(f'-Djava.io.tmpdir={scratch}')} {given[DEFAULTS]}"
        conf = SparkConf().setAll(list(given.items()))
        hears_ctrl_c = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        gateway = None
        with ExitStack() as stack:
            # Only the child is silenced: other threads of this process may print meanwhile.
            output = stack.enter_context((scratch / "java.log").open("w+", encoding="utf-8", errors="replace"))
            banners = {"stdout": output, "stderr": output} if settings.log == "quiet" else {}
            # If it is interrupted while it starts, PySpark leaves a JVM behind.
            with deferred_signals():
                try:
                    with children_ignore_signals():
                        gateway = launch_gateway(conf, banners)  # type: ignore[no-untyped-call]
                    stack.callback(_end, gateway, stop_seconds)
                    launched(gateway.proc)
                    context = SparkContext(conf=conf, gateway=gateway)
                    # It would print a trace if the JVM ends first.
                    context._accumulatorServer.handle_error = lambda *_: None  # type: ignore[method-assign]
                    spark = SparkSession.builder.config(conf=conf).getOrCreate()
                except (PySparkException, Py4JError, OSError) as error:
                    output.seek(0)
                    text = f"{output.read()}{error}"
                    raise faults.not_started(settings, gateway and gateway.proc, text) from error
            if threading.current_thread() is threading.main_thread() and hears_ctrl_c:
                # PySpark's own handler would call the JVM in the middle of another call, and print what comes of it.
                signal.signal(signal.SIGINT, signal.default_int_handler)
            java = gateway.jvm.java.lang.System.getProperty("java.specification.version")
            if java not in JAVA:
                raise UsageFault(f"Java 17 or 21 is needed, this is {java}; point JAVA_HOME at one")
            if not settings.spark.is_local:
                stack.enter_context(spark_cluster.watched(spark, settings))
            with faults.spark_faults():
                yield spark


@contextmanager
def configured(spark: "SparkSession", conf: Mapping[str, str]) -> Iterator[None]:
    """A session that has these settings while the context lasts, and then its own again."""
    earlier = {name: spark.conf.get(name, None) for name in conf}
    for name, value in conf.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, own in earlier.items():
            spark.conf.unset(name) if own is None else spark.conf.set(name, own)


def _end(gateway: "JavaGateway", seconds: float) -> None:
    """Stops the session and its JVM within these seconds, whatever state they are in."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    limit = time.monotonic() + seconds

    def stop() -> None:
        with suppress(Exception):  # the JVM may be gone
            if SparkSession._instantiatedSession:
                SparkSession._instantiatedSession.stop()
            gateway.shutdown()

    with deferred_signals():
        stopping = threading.Thread(target=stop, daemon=True)
        stopping.start()
        stopping.join(seconds / 2)
        with suppress(OSError):
            gateway.proc.stdin.close()  # the JVM ends when its standard input closes
        try:
            gateway.proc.wait(max(1.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            gateway.proc.kill()
            gateway.proc.wait()
        SparkContext._gateway = SparkContext._jvm = None  # otherwise the next session would call this JVM


class LazySession(AbstractContextManager["LazySession"]):
    """At most one session while the context lasts: `given` by the caller, who ends it, or started here and ended with
    the context whatever signal comes, so that no JVM is left behind. Only one thread may use it."""

    def __init__(self, settings: Settings, given: "SparkSession | None", report: Report) -> None:
        self._settings, self._given, self._report = settings, given, report
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="spark")
        self._future: Future[SparkSession] | None = None
        self._process: Process | None = None
        self._is_unwanted = False
        self._started = ExitStack()

    def __exit__(self, *raised: Any) -> bool:
        self._is_unwanted = True
        if self._process and self._future and not self._future.done():
            self._process.kill()
        with deferred_signals():
            self._starter.shutdown()
        return bool(self._started.__exit__(*raised))

    def start_ahead(self, rows: int) -> None:
        """Starts the session in the background, for about so many rows."""
        if not self._given:
            self._start(rows)

    def get(self) -> "SparkSession":
        """The session; waits until it has started."""
        if self._given:
            return self._given
        starting = self._start(None)
        with nullcontext() if starting.done() else self._report.waiting("spark", "start"):
            return starting.result()

    def end(self) -> None:
        """Ends a session that was started here: nobody will ask for it again."""
        if self._future and self._future.done():
            self._report.progress("spark", "end")
            self._started.close()
            self._report.finished("spark", "end")

    def _start(self, rows: int | None) -> "Future[SparkSession]":
        if self._future is None:
            settings = compiling_less(self._settings, _expected_rows(self._settings) if rows is None else rows)
            starting = session(settings, launched=self._launched)
            self._future = self._starter.submit(self._started.enter_context, starting)
        return self._future

    def _launched(self, process: Process) -> None:
        self._process = process
        if self._is_unwanted:
            process.kill()


def compiling_less(settings: Settings, rows: int) -> Settings:
    """Settings for a session that reads about so many rows: if they are few, its JVM compiles less."""
    if rows > FEW_ROWS:
        return settings
    java = " ".join(filter(None, (class_data_archive.COMPILE_LESS, settings.spark.conf.get(DEFAULTS))))
    spark = settings.spark.model_copy(update={"conf": settings.spark.conf | {DEFAULTS: java}})
    return settings.model_copy(update={"spark": spark})


def _expected_rows(settings: Settings) -> int:
    """The number of rows that silver and gold will read: all of a domain, unless its bronze applied what changed."""
    rows = 0
    for domain in catalogue.domains():
        bronze, silver = (run_log.last_run(settings.layer_path(layer), domain) for layer in LAYERS[:2])
        tables = bronze.tables if bronze else ()
        if not silver or any(table.mode is Mode.FULL for table in tables):
            rows += sum(table.rows_out for table in tables)
    return rows
