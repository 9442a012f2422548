"""What the tests share: one embedded PostgreSQL, one Spark session, fresh databases and lakes."""

import gc
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.settings import PROJECT, Postgres, Settings, load
from pipelines.core.console import Report
from pipelines.run.layers import RunRequest, run_layers
from pipelines.sources.postgres import embedded
from pipelines.spark.remote import is_remote
from pipelines.spark.session import session
from tests.support import engine
from tests.support.condominio import drop_all
from tests.support.folders import server_home, write_to_memory
from tests.support.frames import frame_of
from tests.support.here import CliHere
from tests.support.lake import NOWHERE, Lake, Rows
from tests.support.prepared import SCENES, Prepared, copied_files, prepare
from tests.support.process import BRIEF
from tests.support.source import BANK, KEYED, execute, fresh_database

# `make test` tries the same few examples every time; `make test-long` new ones, and many.
hypothesis.settings.register_profile("short", max_examples=1, derandomize=True, database=None)
hypothesis.settings.register_profile("long", max_examples=200, print_blob=True)
hypothesis.settings.load_profile("short")

gc.set_threshold(50_000)  # a run makes many objects, few of them in circles
write_to_memory()


# For a few rows in one partition. Rows that a test gives are not computed while their plan is made: it runs.
SMALL = {
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.optimizer.excludedRules": "org.apache.spark.sql.catalyst.optimizer.ConvertToLocalRelation",
}

# What a shell runs in the background ignores these, and so would the runs that the tests start and stop.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a fixture of their module run in one worker, which makes it once; so do all that ask a JVM."""
    asking = {item.path for item in items if item.get_closest_marker("jvm")}
    for item in items:
        named = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
        shares = any(fixture.scope == "module" for fixtures in named.values() for fixture in fixtures[-1:])
        if item.get_closest_marker("jvm") or (shares and item.path in asking):
            item.add_marker(pytest.mark.xdist_group("jvm"))
        elif shares:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    engine.use(remote=not (engine.IS_SPARK or item.get_closest_marker("jvm")))


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    with server_home() as folder:
        yield folder


@pytest.fixture(scope="session")
def server(server_folder: Path) -> Iterator[Postgres]:
    """A real PostgreSQL that all tests share."""
    with embedded.server(server_folder) as address:
        yield address


@pytest.fixture
def database(server: Postgres) -> Iterator[Postgres]:
    """An empty database."""
    with fresh_database(server) as address:
        yield address


@pytest.fixture(scope="session")
def jvm() -> Iterator[SparkSession]:
    """Spark's own session, of all tests in this process that ask for it."""
    small = BRIEF | SMALL
    settings, _ = load(
        {"LAKEHOUSE_SPARK__DRIVER_MEMORY": "1g", "LAKEHOUSE_SPARK__CONF": json.dumps(small)}, base=PROJECT
    )
    with ExitStack() as stack:
        with engine.using(remote=False):
            spark = stack.enter_context(session(settings))
        yield spark


@pytest.fixture(scope="session")
def any_spark(request: pytest.FixtureRequest) -> Iterator[SparkSession]:
    """The session of all tests in this process that may run on any engine."""
    if engine.IS_SPARK:
        yield request.getfixturevalue("jvm")
    else:
        with engine.remote_session() as spark:
            yield spark


@pytest.fixture
def spark(request: pytest.FixtureRequest) -> SparkSession:
    """The session of a test: Spark's own when it is marked `jvm`."""
    name = "jvm" if request.node.get_closest_marker("jvm") else "any_spark"
    spark: SparkSession = request.getfixturevalue(name)
    return spark


@pytest.fixture
def rows(spark: SparkSession) -> Rows:
    """A small frame: a schema in Spark's words, then rows."""

    def make(schema: str, *values: tuple[Any, ...]) -> DataFrame:
        return frame_of(spark, schema, values)

    return make


@pytest.fixture
def lakehouse(tmp_path: Path, database: Postgres, spark: SparkSession) -> Lake:
    return Lake(tmp_path, database, spark)


@pytest.fixture
def keyed(lakehouse: Lake) -> Lake:
    """Tables with primary keys and references: 20 members with a card each, 200 movements of 1.25; nothing ran."""
    execute(lakehouse.address, *KEYED)
    return lakehouse


@pytest.fixture
def bank(lakehouse: Lake) -> Lake:
    """Accounts with a card and a movement each, their balance; nothing ran."""
    execute(lakehouse.address, *BANK)
    return lakehouse


@pytest.fixture(scope="session")
def prepared(
    server: Postgres, any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Prepared]]:
    """A lake that ran once, by the name of what happened to it."""
    with ExitStack() as stack:

        @cache
        def named(scene: str) -> Prepared:
            address = stack.enter_context(fresh_database(server))
            lake = Lake(tmp_path_factory.mktemp(scene), address, any_spark)
            return prepare(lake, server, SCENES[scene])

        yield named


@pytest.fixture
def keyed_lake(prepared: Callable[[str], Prepared], tmp_path: Path, spark: SparkSession) -> Iterator[Lake]:
    """20 members with an account and a card each, 200 movements; all layers ran once."""
    with prepared("keyed").copied(tmp_path, spark) as lake:
        yield lake


@pytest.fixture
def nasty_lake(prepared: Callable[[str], Prepared], tmp_path: Path, spark: SparkSession) -> Iterator[Lake]:
    """Nasty rows in tables without keys; all layers ran once."""
    with prepared("nasty").copied(tmp_path, spark) as lake:
        yield lake


@pytest.fixture
def nights_lake(prepared: Callable[[str], Prepared], tmp_path: Path, spark: SparkSession) -> Iterator[Lake]:
    """Three nights of the nasty rows; the CSV of each, `1.csv` and so on, lies beside the lake."""
    with prepared("nights").copied(tmp_path, spark) as lake:
        yield lake


@pytest.fixture
def condominio(tmp_path: Path, spark: SparkSession) -> Lake:
    """A lake of files, which come in any order and have no ids."""
    return Lake(tmp_path, NOWHERE, spark, "condominio")


@pytest.fixture(scope="session")
def condominio_prepared(any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake that nobody changes any more."""
    lake = Lake(tmp_path_factory.mktemp("condominio"), NOWHERE, any_spark, "condominio")
    drop_all(lake, "1,1,2024-03-01,10.00")
    lake.run()
    return lake


@pytest.fixture
def condominio_lake(condominio_prepared: Lake, tmp_path: Path, spark: SparkSession) -> Lake:
    """A sale and its parents, a file for each table; all layers ran once."""
    return copied_files(replace(condominio_prepared, spark=spark), tmp_path)


@pytest.fixture
def varejo(tmp_path: Path, spark: SparkSession) -> Lake:
    """A lake of files, of which each is a whole table."""
    return Lake(tmp_path, NOWHERE, spark, "varejo")


@pytest.fixture
def light_batches(any_spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """The micro-batches of a stream, whose query needs Spark's own session, run their layers in that of any engine."""

    def on_any(settings: Settings, request: RunRequest, report: Report, _: SparkSession) -> object:
        with engine.using(is_remote(any_spark)):
            return run_layers(settings, request, report, any_spark)

    monkeypatch.setattr("pipelines.commands.stream.run_layers", on_any)


@pytest.fixture
def cli_here(tmp_path: Path, spark: SparkSession) -> CliHere:
    """The command line in this process."""
    return CliHere(tmp_path, spark)
