"""What the tests share: one embedded PostgreSQL, one Spark session, fresh databases and lakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from pyspark.sql import DataFrame, SparkSession

from conf.settings import PROJECT, Postgres, Settings, load
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.lake import run_log, runs
from pipelines.run.layers import run_layers
from pipelines.sources.postgres import embedded
from pipelines.sources.postgres.connection import dsn
from pipelines.spark.session import session

# `make test` tries the same few examples every time; `make test-long` new ones, and many.
hypothesis.settings.register_profile("short", max_examples=1, derandomize=True, database=None)
hypothesis.settings.register_profile("long", max_examples=200, print_blob=True)
hypothesis.settings.load_profile("short")

# The tests' JVMs live for a short while: they compile less.
BRIEF = {"spark.driver.defaultJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}


# What a shell runs in the background ignores these, and so would the runs that the tests start and stop.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

LONGEST = ("test_demo.py", "test_crash.py", "test_history.py", "test_kill.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lakehouse-test-", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(server_folder: Path) -> Iterator[Postgres]:
    """A real PostgreSQL that all tests share."""
    with embedded.server(server_folder) as address:
        yield address


@contextmanager
def fresh_database(server: Postgres) -> Iterator[Postgres]:
    name = f"teste_{uuid.uuid4().hex[:8]}"
    with connected(server) as admin:
        admin.cursor().execute(f"CREATE DATABASE {name}")
    yield server.model_copy(update={"database": name})
    with connected(server) as admin:
        admin.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(server: Postgres) -> Iterator[Postgres]:
    """An empty database."""
    with fresh_database(server) as address:
        yield address


class connected:
    """A connection in autocommit for a `with` block."""

    def __init__(self, address: Postgres) -> None:
        self.address = address

    def __enter__(self) -> Connection:
        self.connection = psycopg2.connect(dsn(self.address))
        self.connection.autocommit = True
        return self.connection

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def execute(address: Postgres, *statements: str) -> None:
    with connected(address) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def query(address: Postgres, sql: str) -> list[tuple[Any, ...]]:
    with connected(address) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The one session of all tests that run in this process."""
    small = BRIEF | {"spark.sql.shuffle.partitions": "1", "spark.databricks.delta.snapshotPartitions": "1"}
    settings, _ = load(
        {"LAKEHOUSE_SPARK__DRIVER_MEMORY": "1g", "LAKEHOUSE_SPARK__CONF": json.dumps(small)}, base=PROJECT
    )
    with session(settings) as spark:
        yield spark


ALL = "associado conta cartao movimento movimento_flat"
Rows = Callable[..., DataFrame]


@pytest.fixture
def rows(spark: SparkSession) -> Rows:
    """A small frame: a schema in Spark's words, then rows."""

    def make(schema: str, *values: tuple[Any, ...]) -> DataFrame:
        return spark.createDataFrame(list(values), schema)

    return make


@dataclass
class Lake:
    """A fresh lake, filled from `address`, or from files, in this process."""

    folder: Path
    address: Postgres
    spark: SparkSession
    domain: str = "cartoes"

    def settings(self, **given: str) -> Settings:
        """Settings that read this database and write below this folder; given ones by the end of their name."""
        named = {"ROOT": "lake", "EXPORT_PATH": "export", "QUALITY__MAX_QUARANTINED": "1"} | given
        settings, _ = load({f"LAKEHOUSE_{name}": value for name, value in named.items()}, base=self.folder)
        return settings.model_copy(update={"postgres": self.address})

    def run(self, *layers: str, full: str = "", **given: str) -> Settings:
        """Runs layers, all of them by default; `full` names tables to build whole."""
        settings = self.settings(**given)
        with Report() as report:
            run_layers(
                settings, set(layers or LAYERS), report, self.spark, frozenset(full.split()), only=(self.domain,)
            )
        return settings

    def drop(self, name: str, text: str | bytes, at: int | None = None) -> Path:
        """Puts a file into the landing folder, as of a moment."""
        path = self.folder / "landing" / self.domain / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{name}")
        half.write_bytes(text if isinstance(text, bytes) else text.encode())
        if at is not None:
            os.utime(half, (at, at))
        return half.rename(path)

    def last(self, layer: str) -> runs.Run:
        run = run_log.last_run(self.settings().layer_path(layer), self.domain)
        assert run is not None
        return run

    def table(self, layer: str, name: str) -> list[dict[str, Any]]:
        """A table of the last complete run, its rows as dicts, in order of their first column."""
        path, version = self.settings().layer_path(layer) / self.domain / name, self.last(layer).table(name).version
        frame = self.spark.read.format("delta").option("versionAsOf", version).load(str(path))
        return [row.asDict() for row in frame.orderBy(frame.columns[0]).collect()]

    @property
    def csv(self) -> bytes:
        return (self.folder / "export" / "movimento_flat.csv").read_bytes()


@pytest.fixture
def lakehouse(tmp_path: Path, database: Postgres, spark: SparkSession) -> Lake:
    return Lake(tmp_path, database, spark)


# A domain of files asks no server.
NOWHERE = Postgres(host="/nowhere", database="none", user="nobody")


@pytest.fixture
def condominio(tmp_path: Path, spark: SparkSession) -> Lake:
    """A lake of files, which come in any order and have no ids."""
    return Lake(tmp_path, NOWHERE, spark, "condominio")


@pytest.fixture
def varejo(tmp_path: Path, spark: SparkSession) -> Lake:
    """A lake of files, of which each is a whole table."""
    return Lake(tmp_path, NOWHERE, spark, "varejo")


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of a child process: nothing of the developer's own settings."""
    kept = {name: os.environ[name] for name in ("PATH", "JAVA_HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(home), "PYTHONPATH": str(PROJECT), "LAKEHOUSE_SPARK__CONF": json.dumps(BRIEF)}


@dataclass
class Cli:
    """The real command line in child processes, in an empty folder."""

    folder: Path

    def __call__(
        self, *words: str, env: dict[str, str] | None = None, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "pipelines", *words],
            cwd=self.folder,
            env=clean_environment(self.folder) | (env or {}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def connection_settings(address: Postgres) -> dict[str, str]:
    return {
        "LAKEHOUSE_POSTGRES__HOST": address.host,
        "LAKEHOUSE_POSTGRES__DATABASE": address.database,
        "LAKEHOUSE_POSTGRES__USER": address.user,
    }
