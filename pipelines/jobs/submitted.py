"""A run of one layer in a Spark session that somebody else configured and ends."""

from contextlib import nullcontext
from datetime import UTC, datetime

from pyspark.sql import SparkSession

from conf.settings import PROJECT, Settings
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.umask import closed_to_others
from pipelines.notify.outcome import Outcome
from pipelines.run.call import end_call, read_settings
from pipelines.run.layers import RunRequest, run_layers
from pipelines.run.summary import show
from pipelines.spark import cluster as spark_cluster
from pipelines.spark.session import DELTA, SQL_NEEDS, configured


@closed_to_others()
def run_job(layer: str, spark: SparkSession | None = None) -> int:
    """Runs a layer in a session, by default spark-submit's. Returns an exit code of `docs/reference.md`."""
    call, settings, failure = Outcome((layer,), "", datetime.now(UTC)), None, None
    try:
        settings = read_settings(())
        session = spark or SparkSession.builder.config("spark.executorEnv.PYTHONPATH", str(PROJECT)).getOrCreate()
        check(session)
        with configured(session, SQL_NEEDS), Report(as_json=settings.log_format == "json") as report:
            settings = _of_session(settings, session)
            with nullcontext() if settings.spark.is_local else spark_cluster.watched(session, settings):
                request = RunRequest(frozenset({layer}), readers_are_tasks=True)
                runs, faults = run_layers(settings, request, report, session)
            show(settings, runs, report)
            if faults:
                raise faults[0]
    except BaseException as error:  # that Rust panics, too
        failure = error
    return end_call(call, (), settings, failure)


def _of_session(settings: Settings, spark: SparkSession) -> Settings:
    """The settings with the master and the memory that the session has."""
    assert spark._jvm is not None
    memory = spark.sparkContext.getConf().get("spark.driver.memory", "1g")  # in any unit that Spark knows
    megabytes = spark._jvm.org.apache.spark.network.util.JavaUtils.byteStringAsMb(memory)
    of_session = {"master": spark.sparkContext.master, "driver_memory": f"{megabytes}m"}
    return settings.model_copy(update={"spark": settings.spark.model_copy(update=of_session)})


def check(spark: SparkSession) -> None:
    """Raises UsageFault if a session lacks what only its start can give, of that which a run's results depend on."""
    if DELTA not in (spark.conf.get("spark.sql.extensions", "") or ""):
        raise UsageFault(f"this session does not have Delta; start it with --conf spark.sql.extensions={DELTA}")
    assert spark._jvm is not None
    if (zone := spark._jvm.java.util.TimeZone.getDefault().getID()) not in ("UTC", "Etc/UTC", "GMT"):
        option = "--driver-java-options -Duser.timezone=UTC"
        raise UsageFault(f"the JVM of this session is in {zone}; start it with {option}, its executors likewise")
