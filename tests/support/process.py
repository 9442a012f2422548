"""The real command line in child processes, and threads beside a test."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from conf.settings import PROJECT, Postgres
from tests.support.engine import IS_SPARK
from tests.support.lake import Lake

# A plan that runs once over a few rows is interpreted sooner than it is compiled, and run sooner than it is planned again
# between its stages. With LAKEHOUSE_TEST_ENGINE=spark Spark does both, as it does in a user's run.
INTERPRETED = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.sql.adaptive.enabled": "false",
}
# The tests' JVMs live for a short while: they compile less.
BRIEF = {"spark.driver.defaultJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
if not IS_SPARK:
    BRIEF |= INTERPRETED


ABSENT = Path(__file__).with_name("absent")  # modules that the tests have and the product does not bring


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of a child process: nothing of the developer's own settings, nor what only the tests need."""
    kept = {name: os.environ[name] for name in ("PATH", "JAVA_HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "PYTHONPATH": f"{ABSENT}{os.pathsep}{PROJECT}",
        "LAKEHOUSE_SPARK__CONF": json.dumps(BRIEF),
    }


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


def connection_settings(address: Postgres) -> dict[str, str]:
    return {
        "LAKEHOUSE_POSTGRES__HOST": address.host,
        "LAKEHOUSE_POSTGRES__DATABASE": address.database,
        "LAKEHOUSE_POSTGRES__USER": address.user,
    }


def start(lakehouse: Lake, *words: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words],
        cwd=lakehouse.folder,
        env=clean_environment(lakehouse.folder) | connection_settings(lakehouse.address) | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def family(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return list(psutil.Process(process.pid).children(recursive=True))


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@contextmanager
def meanwhile(work: Callable[[], None], pause: float = 0.01) -> Iterator[None]:
    """Does something again and again while the context lasts, after a pause in seconds; what it raises is raised at the
    end."""
    ended, raised = threading.Event(), list[BaseException]()

    def repeat() -> None:
        try:
            while not ended.wait(pause):
                work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if raised:
        raise raised[0]
