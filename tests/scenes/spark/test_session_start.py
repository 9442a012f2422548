"""Spark starts beside bronze where silver will have work, and only there; nothing of it is left behind."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pyspark.sql import SparkSession

from conf.settings import Settings
from pipelines.bronze import job as bronze_job
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS
from pipelines.export import csv as export_csv
from pipelines.jobs.submitted import _of_session
from pipelines.lake import run_log
from pipelines.run.layers import RunRequest, run_layers
from pipelines.spark import session as spark_session
from tests.support.lake import ALL, Lake, changed
from tests.support.oracle import agree
from tests.support.source import execute


def run(lakehouse: Lake) -> None:
    """All layers; a session is started as on the command line."""
    with Report() as report:
        run_layers(lakehouse.settings(), RunRequest(), report)


def starts(
    monkeypatch: pytest.MonkeyPatch, at: Callable[[], SparkSession]
) -> tuple[threading.Event, list[bool], list[str]]:
    """Lets sessions be what `at` gives: whether one begun, whether it had when each layer was recorded, which ended."""
    begun, recorded, ended, true = threading.Event(), list[bool](), list[str](), run_log.record

    @contextmanager
    def session(_: Settings, **__: object) -> Iterator[SparkSession]:
        begun.set()
        try:
            yield at()
        finally:
            ended.append(threading.current_thread().name)

    def record(*arguments):  # type: ignore[no-untyped-def]
        recorded.append(begun.wait(1))
        true(*arguments)

    monkeypatch.setattr("pipelines.spark.session.session", session)
    monkeypatch.setattr(run_log, "record", record)
    return begun, recorded, ended


def test_the_session_starts_while_bronze_reads_the_first_time_and_later_when_silver_asks(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, recorded, ended = starts(monkeypatch, lambda: keyed_lake.spark)
    draft, at_the_csv = export_csv.draft, list[int]()

    def drafted(*arguments):  # type: ignore[no-untyped-def]
        at_the_csv.append(len(ended))
        return draft(*arguments)

    monkeypatch.setattr(export_csv, "draft", drafted)
    execute(keyed_lake.address, "UPDATE associado SET nome = 'Eva' WHERE id = 3")
    run(keyed_lake)
    assert at_the_csv == [1]  # the memory of Spark is free
    assert (recorded, ended) == ([False, True, True], ["MainThread"])
    assert changed(keyed_lake, "gold") == {"movimento_flat": "0 written, 10 updated, 0 deleted"}
    begun.clear()
    true, early = bronze_job.read, list[bool]()

    def read(*arguments):  # type: ignore[no-untyped-def]
        early.append(begun.wait(3))
        return true(*arguments)

    monkeypatch.setattr(bronze_job, "read", read)
    fresh = Lake(keyed_lake.folder / "fresh", keyed_lake.address, keyed_lake.spark)
    run(fresh)
    assert (early, recorded, ended) == ([True], [False] + [True] * 5, ["MainThread"] * 2)
    agree(fresh)


def test_a_table_read_in_full_without_a_change_starts_no_session(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipelines.spark.session.session", lambda *_, **__: pytest.fail("Spark was started for nothing")
    )
    monkeypatch.setattr("pipelines.sources.postgres.fingerprint.what_changed", lambda *_: "the server was started anew")
    run(keyed_lake)
    assert changed(keyed_lake, "bronze").keys() == {"associado", "conta", "cartao", "movimento"}
    assert changed(keyed_lake, "silver") == changed(keyed_lake, "gold") == {}


def test_a_session_that_does_not_start_ends_the_run_when_silver_needs_it(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> SparkSession:
        raise UsageFault("Spark does not start")

    starts(monkeypatch, broken)
    fresh = Lake(keyed_lake.folder / "fresh", keyed_lake.address, keyed_lake.spark)
    with pytest.raises(UsageFault, match="Spark does not start"):
        run(fresh)
    settings = fresh.settings()
    assert [len(run_log.read_runs(settings.layer_path(layer))) for layer in LAYERS] == [1, 0, 0]


def test_the_jvm_compiles_less_for_few_rows_and_the_users_options_come_after_ours(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few are the rows of a new lake, by the source's size; those of the last run, here 260; and what changed."""
    given = list[str]()

    def session(settings: Settings, **_: object) -> None:
        given.append(settings.spark.conf.get(spark_session.DEFAULTS, ""))
        raise UsageFault("enough")

    monkeypatch.setattr(spark_session, "session", session)
    for few, row_bytes in ((260, 10**9), (259, 1)):
        monkeypatch.setattr(spark_session, "FEW_ROWS", few)
        monkeypatch.setattr("pipelines.run.layers.ROW_BYTES", row_bytes)
        execute(keyed_lake.address, "UPDATE associado SET idade = idade + 1 WHERE id = 3")
        for lakehouse in (Lake(keyed_lake.folder / f"fresh {few}", keyed_lake.address, keyed_lake.spark), keyed_lake):
            with pytest.raises(UsageFault, match="enough"):
                run(lakehouse)
    keyed_lake.run("bronze", full=ALL)
    for few in (259, 260):
        monkeypatch.setattr(spark_session, "FEW_ROWS", few)
        with pytest.raises(UsageFault, match="enough"):
            run_layers(keyed_lake.settings(), RunRequest({"silver"}, full=frozenset(ALL.split())), Report())
    less = "-XX:TieredStopAtLevel=1"
    assert given == [less, less, "", less, "", less]
    monkeypatch.setattr(spark_session, "FEW_ROWS", 260)
    user = keyed_lake.settings(SPARK__CONF='{"spark.driver.defaultJavaOptions": "-XX:TieredStopAtLevel=3"}')
    java = spark_session.configuration(spark_session.compiling_less(user, 260))[spark_session.DEFAULTS]
    assert java.endswith(" -XX:TieredStopAtLevel=1 -XX:TieredStopAtLevel=3")


@pytest.mark.jvm
def test_the_memory_of_a_given_session_is_read_in_any_unit_that_spark_knows(
    jvm: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"spark.driver.memory": "2G"}
    monkeypatch.setattr(jvm.sparkContext, "getConf", lambda: given)
    assert _of_session(Settings(), jvm).spark.driver_bytes == 2 * 2**30
    given["spark.driver.memory"] = "1048576k"
    assert _of_session(Settings(), jvm).spark.driver_bytes == 2**30
