"""A child process: the command line, in which something goes wrong at one point of the commit protocol.

The kinds: `kill` is SIGKILL, `error` an exception that nobody expects, `full` a disk (of CRASH_DISK) without space from
there on. Children are forks of a process that has imported what they need, which takes longer than most of their runs.
"""

import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import SparkSession

from conf.settings import Settings
from pipelines.core import points
from pipelines.core.points import Point

DISK, GATEWAY, SERVER = "CRASH_DISK", "PYSPARK_GATEWAY_PORT", "CRASH_SERVER"


def arm(name: str, happens: Callable[[], object], nth: int = 1) -> None:
    """Lets something happen when this process comes to a point for the nth time. Raises KeyError when it is none."""
    armed, passed = Point[name], itertools.count(1)

    def at(point: Point) -> None:
        if point is armed and next(passed) == nth:
            happens()

    points.armed = at


@dataclass(frozen=True)
class Scenario:
    """The nth time at a point, by its name, in a run of the target; `complete`: the run counts by then. `first`: the
    scenario in which a run was killed before. `keyed`: the tables have keys, so that the run applies what changed.
    `long`: tried by `make test-long` only, with errors and a full disk unless `kinds` has them in `make test`, too."""

    target: str
    point: str
    nth: int = 1
    complete: bool = False
    first: str = ""
    keyed: bool = False
    long: bool = False
    kinds: tuple[str, ...] = ("kill",)


ALL_KINDS = ("kill", "error", "full")


SCENARIOS = {
    "bronze, snapshot taken, nothing read": Scenario("bronze", "SNAPSHOT_TAKEN"),
    "bronze, a file half written": Scenario("bronze", "BATCH_SHAPED", nth=2, long=True),
    "bronze, files written, not proved": Scenario("bronze", "FILES_WRITTEN", nth=2, long=True),
    "bronze, proved, not committed": Scenario("bronze", "TABLE_PROVED", long=True),
    "bronze, half of the tables committed": Scenario("bronze", "TABLE_COMMITTED", nth=2, kinds=ALL_KINDS),
    "bronze, committed, not recorded": Scenario("bronze", "ALL_COMMITTED", long=True),
    "bronze, recorded": Scenario("bronze", "RECORDED", complete=True, keyed=True, long=True),
    "silver, Spark wrote, files not in place": Scenario("silver", "SPARK_WROTE", long=True),
    "silver, files in place, not proved": Scenario("silver", "FILES_WRITTEN", nth=3, long=True),
    "silver, half of the tables committed": Scenario("silver", "TABLE_COMMITTED", nth=4, long=True),
    "silver, rules written, not the run": Scenario("silver", "RULES_RECORDED", keyed=True, long=True),
    "gold, rows written, no CSV": Scenario("gold", "TABLES_BUILT"),
    "gold, CSV written, not read back": Scenario("gold", "CSV_WRITTEN", long=True),
    "gold, committed, CSV not renamed": Scenario("gold", "TABLE_COMMITTED", long=True),
    "gold, CSV renamed, not recorded": Scenario("gold", "ALL_COMMITTED"),
    "gold, recorded": Scenario("gold", "RECORDED", complete=True, keyed=True, kinds=("kill", "error")),
    "bronze, batch written, not committed": Scenario("bronze", "TABLE_PROVED", keyed=True),
    "bronze, half of the batches committed": Scenario("bronze", "TABLE_COMMITTED", nth=2, keyed=True, long=True),
    "silver, a file written again, not proved": Scenario("silver", "FILES_SPLICED", nth=2, keyed=True, long=True),
    "silver, half of the changes committed": Scenario("silver", "TABLE_COMMITTED", nth=3, keyed=True),
    "gold, a commit written, not in place": Scenario("gold", "COMMIT_WRITTEN", keyed=True, kinds=ALL_KINDS),
    "gold, changes committed, CSV not renamed": Scenario("gold", "TABLE_COMMITTED", keyed=True),
    "one table brought back, others not": Scenario(
        "bronze", "TABLE_ROLLED_BACK", first="bronze, half of the tables committed"
    ),
    "restore, half of the tables": Scenario("restore", "TABLE_ROLLED_BACK", nth=2),
    "maintain, some files removed": Scenario("maintain", "FILE_REMOVED", nth=2),
    "maintain, compacted, not recorded": Scenario("maintain", "TABLE_COMMITTED", keyed=True, kinds=ALL_KINDS),
}
# Of a stream, which ingests files in micro-batches: of the second, where the first is the same step.
STREAM_SCENARIOS = {
    "nothing ingested": Scenario("stream", "LANDING_LISTED", nth=2, long=True),
    "rows written, not committed": Scenario("stream", "FILE_INGESTED", long=True),
    "half of the tables committed": Scenario("stream", "TABLE_COMMITTED", nth=2, long=True),
    "files recorded, not the run": Scenario("stream", "FILES_RECORDED", long=True),
    "bronze recorded": Scenario("stream", "RECORDED", nth=4, long=True),
    "silver recorded": Scenario("stream", "RECORDED", nth=5, long=True),
    "gold recorded, Spark does not know": Scenario("stream", "RECORDED", nth=6, long=True),
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


@contextmanager
def shared_session(_: Settings, **__: object) -> Iterator[SparkSession]:
    """The session of the tests' own JVM, which outlives this process, as an orphaned one would for a while."""
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway

    gateway = launch_gateway()  # type: ignore[no-untyped-call]
    running = gateway.jvm.org.apache.spark.SparkContext.getOrCreate()
    context = gateway.jvm.org.apache.spark.api.java.JavaSparkContext.fromSparkContext(running)
    yield SparkSession(SparkContext(gateway=gateway, jsc=context, conf=SparkConf(_jconf=context.getConf())))


def child(scenario: str, kind: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The command line's exit code, -9 when it was killed, and what it wrote to standard error."""
    context = multiprocessing.get_context("forkserver")
    handle, name = tempfile.mkstemp(suffix=".crash.log")  # not on the disk that may be full
    os.close(handle)
    log = Path(name)
    context.set_forkserver_preload([__name__, "pipelines.run.layers", "pipelines.spark.remote", *PRELOADED])
    process = context.Process(target=_run, args=(scenario, kind, folder, log, environment))
    process.start()
    process.join(200)
    if process.exitcode is None:
        process.kill()
        process.join()
    assert process.exitcode is not None
    text = log.read_text("utf-8")
    log.unlink()
    return process.exitcode, text


PRELOADED = ("pipelines.commands.maintain", "pipelines.commands.history", "pyspark.sql.connect.session", "pysail.spark")


def _run(name: str, kind: str, folder: Path, log: Path, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    from pipelines.cli.main import main
    from pipelines.lake import layout
    from pipelines.spark import session
    from tests.support import engine

    if GATEWAY in os.environ:
        session.session = shared_session  # type: ignore[assignment]
    elif SERVER in os.environ:
        engine.use(remote=True)
        session.session = lambda *_, **__: engine.remote_session()
    scenario = (SCENARIOS | STREAM_SCENARIOS)[name]
    if scenario.target == "maintain":
        layout.MANY_SMALL_FILES = 2  # the tables are small
    arm(scenario.point, {"kill": kill, "error": error, "full": full}[kind], scenario.nth)
    code = main([scenario.target])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
