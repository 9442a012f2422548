"""A child process: the command line, in which something goes wrong at one named point.

`python -m tests.crash <point> <kind> <target>...`. The kinds: `kill` is SIGKILL, `error` an exception that nobody
expects, `full` a disk (of CRASH_DISK) without space from there on.
"""

import functools
import importlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from conf.settings import Settings

DISK, GATEWAY = "CRASH_DISK", "PYSPARK_GATEWAY_PORT"


@dataclass(frozen=True)
class Point:
    """Before or after the nth call of a function, in a run of the target; `complete`: the run counts by then. `first`:
    the point at which a run was killed before. `keyed`: the tables have keys, so that the run follows what changed.
    `long`: tried by `make test-long` only."""

    target: str
    function: str
    when: str = "after"
    nth: int = 1
    complete: bool = False
    first: str = ""
    keyed: bool = False
    long: bool = False


POINTS = {
    "bronze, snapshot taken, nothing read": Point("bronze", "pipelines.bronze.job:read_plans"),
    "bronze, a file half written": Point("bronze", "pipelines.sources.postgres.reader:shaped", nth=2),
    "bronze, files written, not proved": Point("bronze", "pipelines.lake.staging:evidence", "before", 2, long=True),
    "bronze, proved, not committed": Point("bronze", "pipelines.lake.delta:commit_files", "before"),
    "bronze, half of the tables committed": Point("bronze", "pipelines.lake.delta:commit_files", nth=2),
    "bronze, committed, not recorded": Point("bronze", "pipelines.lake.run_log:record", "before", long=True),
    "bronze, recorded": Point("bronze", "pipelines.lake.run_log:record", complete=True, keyed=True),
    "silver, Spark wrote, files not in place": Point("silver", "pipelines.spark.frames:write_parquet"),
    "silver, files in place, not proved": Point("silver", "pipelines.lake.staging:evidence", "before", 3, long=True),
    "silver, half of the tables committed": Point("silver", "pipelines.lake.delta:commit_files", nth=4, long=True),
    "silver, rules written, not the run": Point("silver", "pipelines.lake.run_log:_append", keyed=True, long=True),
    "gold, rows written, no CSV": Point("gold", "pipelines.export.csv:draft", "before"),
    "gold, CSV written, not read back": Point("gold", "pipelines.export.csv:read_back", "before", long=True),
    "gold, committed, CSV not renamed": Point("gold", "pipelines.lake.delta:commit_files"),
    "gold, CSV renamed, not recorded": Point("gold", "pipelines.lake.run_log:record", "before"),
    "gold, recorded": Point("gold", "pipelines.lake.run_log:record", complete=True, keyed=True),
    "bronze, batch written, not committed": Point(
        "bronze", "pipelines.lake.delta:commit_changes", "before", keyed=True
    ),
    "bronze, half of the batches committed": Point(
        "bronze", "pipelines.lake.delta:commit_changes", nth=2, keyed=True, long=True
    ),
    "silver, a file written again, not proved": Point(
        "silver", "pipelines.lake.changes:_proved", "before", 2, keyed=True, long=True
    ),
    "silver, half of the changes committed": Point("silver", "pipelines.lake.delta:commit_changes", nth=3, keyed=True),
    "gold, a commit half written": Point("gold", "pipelines.lake.delta:_add_action", keyed=True),
    "gold, changes committed, CSV not renamed": Point("gold", "pipelines.lake.delta:commit_changes", keyed=True),
    "one table brought back, others not": Point(
        "bronze", "pipelines.lake.run_log:restore_version", first="bronze, half of the tables committed"
    ),
    "restore, half of the tables": Point("restore", "pipelines.lake.run_log:restore_version", nth=2),
    "maintain, some files removed": Point("maintain", "pipelines.commands.maintain:remove", nth=2),
    "maintain, compacted, not recorded": Point("maintain", "pipelines.lake.delta:commit_changes"),
}
# Of a stream, which takes files in micro-batches, the second of which is killed where the first is the same step.
STREAM_POINTS = {
    "nothing taken": Point("stream", "pipelines.bronze.files:landing_state", nth=2, long=True),
    "rows written, not committed": Point("stream", "pipelines.sources.files.landing:ingest", long=True),
    "half of the tables committed": Point("stream", "pipelines.lake.delta:commit_files", nth=2, long=True),
    "files recorded, not the run": Point("stream", "pipelines.lake.run_log:_append_of", nth=2),
    "bronze recorded": Point("stream", "pipelines.lake.run_log:record", nth=4, long=True),
    "silver recorded": Point("stream", "pipelines.lake.run_log:record", nth=5, long=True),
    "gold recorded, Spark not told": Point("stream", "pipelines.lake.run_log:record", nth=6, long=True),
}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def error() -> None:
    raise RuntimeError("the unexpected")


def full() -> None:
    """Fills the disk to the last byte; the run goes on."""
    with suppress(OSError), (Path(os.environ[DISK]) / "filler").open("wb", buffering=0) as file:
        for size in (2**16, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)


def arm(point: Point, happens: Callable[[], None]) -> None:
    """Replaces the point's function by one that lets it happen."""
    module, name = point.function.split(":")
    owner = importlib.import_module(module)
    true, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(true)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        now = next(calls) == point.nth
        if now and point.when == "before":
            happens()
        result = true(*arguments, **named)
        if now and point.when == "after":
            happens()
        return result

    # In each module that has imported it by name, too.
    importlib.import_module("pipelines.cli.targets")
    for used in [one for key, one in sys.modules.items() if key.startswith("pipelines")]:
        if getattr(used, name, None) is true:
            setattr(used, name, wrapped)


@contextmanager
def shared_session(_: Settings, **__: object) -> Iterator[SparkSession]:
    """The session of the tests' own JVM, which outlives this process, as an orphaned one would for a while."""
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway

    gateway = launch_gateway()  # type: ignore[no-untyped-call]
    running = gateway.jvm.org.apache.spark.SparkContext.getOrCreate()
    context = gateway.jvm.org.apache.spark.api.java.JavaSparkContext.fromSparkContext(running)
    yield SparkSession(SparkContext(gateway=gateway, jsc=context, conf=SparkConf(_jconf=context.getConf())))


if __name__ == "__main__":
    from pipelines.cli.main import main

    for module in (
        "bronze.job",
        "silver.job",
        "gold.job",
        "export.csv",
        "commands.maintain",
        "commands.history",
        "spark.session",
        "bronze.files",
        "commands.stream",
    ):
        importlib.import_module(f"pipelines.{module}")
    sys.modules["pipelines.commands.maintain"].MANY = 1  # type: ignore[attr-defined]  # the tables are small
    if GATEWAY in os.environ:
        sys.modules["pipelines.spark.session"].session = shared_session  # type: ignore[attr-defined]
    if point := (POINTS | STREAM_POINTS).get(sys.argv[1]):
        arm(point, {"kill": kill, "error": error, "full": full}[sys.argv[2]])
    code = main(sys.argv[3:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
