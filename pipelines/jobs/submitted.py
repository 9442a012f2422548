"""A run of one layer in a Spark session that somebody else configured and ends."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from conf.settings import PROJECT, Settings
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.run.call import Invocation, end_call, read_settings
from pipelines.run.layers import RunRequest, run_layers
from pipelines.run.summary import show
from pipelines.spark import cluster as spark_cluster
from pipelines.spark.session import DELTA, SQL_NEEDS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run_job(layer: str, spark: "SparkSession | None" = None) -> int:
    """Runs a layer in a session, the one that spark-submit gives by default. Returns an exit code of
    `docs/reference.md`."""
    invocation, settings, failure = Invocation((layer,), "", (), datetime.now(UTC)), None, None
    try:
        settings = read_settings(())
        with configured(spark or _session()) as session, Report(as_json=settings.log_format == "json") as report:
            settings = _of_session(settings, session)
            local = settings.spark.is_local
            with nullcontext() if local else spark_cluster.watched(session, settings):
                request = RunRequest(frozenset({layer}), readers_are_tasks=True)
                runs, faults = run_layers(settings, request, report, session)
            show(settings, runs, report)
            if faults:
                raise faults[0]
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        failure = error
    return end_call(invocation, settings, failure)


def _session() -> "SparkSession":
    from pyspark.sql import SparkSession

    return SparkSession.builder.config("spark.executorEnv.PYTHONPATH", str(PROJECT)).getOrCreate()


def _of_session(settings: Settings, spark: "SparkSession") -> Settings:
    """The settings with the master and the memory that the session has."""
    of_session = {
        "master": spark.sparkContext.master,
        "driver_memory": spark.sparkContext.getConf().get("spark.driver.memory", "1g"),
    }
    return settings.model_copy(update={"spark": settings.spark.model_copy(update=of_session)})


@contextmanager
def configured(spark: "SparkSession") -> Iterator["SparkSession"]:
    """A session that has, while the context lasts, what a run's results depend on. Raises UsageFault if it lacks what
    only its start can give."""
    if DELTA not in (spark.conf.get("spark.sql.extensions", "") or ""):
        raise UsageFault(f"this session does not have Delta; start it with --conf spark.sql.extensions={DELTA}")
    assert spark._jvm is not None
    if (zone := spark._jvm.java.util.TimeZone.getDefault().getID()) not in ("UTC", "Etc/UTC", "GMT"):
        option = "--driver-java-options -Duser.timezone=UTC"
        raise UsageFault(f"the JVM of this session is in {zone}; start it with {option}, its executors likewise")
    earlier: dict[str, str | None] = {name: spark.conf.get(name, None) for name in SQL_NEEDS}
    for name, needed in SQL_NEEDS.items():
        spark.conf.set(name, needed)
    try:
        yield spark
    finally:
        for name, value in earlier.items():
            if value is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, value)
