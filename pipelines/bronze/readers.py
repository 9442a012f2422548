"""Reads ranges of the source's tables with many readers at a time, all in one snapshot. Readers are threads of this
process (ADR 1); on a cluster each thread waits for an executor that reads in its place (ADR 25)."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from conf.settings import Postgres, Settings
from pipelines.core.console import Report
from pipelines.core.errors import ClusterFault, Fault, SourceFault
from pipelines.core.identity import NAME, software
from pipelines.core.texts import without_values
from pipelines.lake import folders
from pipelines.sources.postgres.connection import cancel, forget_libpqs, hang_up, source_faults
from pipelines.sources.postgres.reader import Reader, ReadPlan, SourceTotals, WrittenFile, source_totals
from pipelines.sources.postgres.snapshot import Relation, Snapshot
from pipelines.spark import cluster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RANGE_BYTES, SMALL_BYTES = 64 * 2**20, 8 * 2**20

LOCAL_READERS = min(4, os.cpu_count() or 1)

# Between two requests to end all queries, and after which connections are cut that such a request does not end.
CANCEL_SECONDS, HANG_UP_SECONDS = 0.1, 3


def ranges(relation: Relation, readers: int, most: int | None = None) -> list[str]:
    """Conditions on `ctid` that cut a table into page ranges, at most `most`; the last one is open, so that no row is
    left out. Each reader, and so each task that later reads its files, gets the same number; a small table is one."""
    parts = -(-relation.size // (RANGE_BYTES * readers)) * readers if relation.size > SMALL_BYTES else 1
    parts = min(parts, most or parts)
    bounds = [relation.pages * part // parts for part in range(1, parts)]
    lower = ["", *(f"ctid >= '({page},0)'" for page in bounds)]
    upper = [*(f"ctid < '({page},0)'" for page in bounds), ""]
    return [" AND ".join(filter(None, both)) for both in zip(lower, upper, strict=True)]


StartSession = Callable[[], "SparkSession"]


class Readers(AbstractContextManager["Readers"]):
    """Counts tables and reads their ranges. As a context: when it fails, no query runs on, and a count that failed is
    raised before the readers' SourceFault, which follows from it."""

    def __init__(
        self, settings: Settings, snapshot: Snapshot, run: int, report: Report, start_session: StartSession | None
    ) -> None:
        self._settings, self._snapshot, self._run, self._report = settings, snapshot, run, report
        self._start_session = start_session
        self._executors: Executors | None = None
        self._reader = Reader(snapshot.server, snapshot.exported, run, report)
        self._number = cluster.EXECUTOR_READERS if start_session else LOCAL_READERS
        self._counter = ThreadPoolExecutor(1, thread_name_prefix="counter")  # of the snapshot's one connection
        self._threads = ThreadPoolExecutor(self._number, thread_name_prefix="reader")
        self._counts: list[Future[SourceTotals]] = []

    def count(self, plan: ReadPlan, newer: str) -> Future[SourceTotals]:
        """Lets the server count a table, one after the other."""

        def counted() -> SourceTotals:
            totals = source_totals(self._snapshot, plan, newer, self._reader.watchdog)
            self._report.expect("bronze", plan.table.name, totals.rows if newer == "false" else totals.newer)
            return totals

        self._counts.append(self._counter.submit(counted))
        return self._counts[-1]

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """What the server answers to a query in the snapshot, after all counts. Raises SourceFault."""

        def answer() -> list[tuple[Any, ...]]:
            server = self._snapshot.server
            with source_faults(f"counting in {server.address}", server), self._reader.watchdog.waiting():
                return self._snapshot.rows(sql)

        return self._counter.submit(answer).result()

    def load(self, plan: ReadPlan) -> list[Future[WrittenFile]]:
        """Begins to read all of a table into its folder."""
        path = folders.table_path(self._settings.bronze_path, plan.table)
        return [self._submit(plan, part, path) for part in ranges(plan.relation, self._number)]

    def rows(self, plan: ReadPlan, condition: str, path: Path) -> list[WrittenFile]:
        """Reads the rows that meet a condition, with all readers if the table is large."""
        parts = ranges(plan.relation, self._number, most=self._number)
        futures = [self._submit(plan, " AND ".join(filter(None, (condition, part))), path) for part in parts]
        for future in as_completed(futures):
            future.result()  # of the first that fails
        return [future.result() for future in futures]

    def _submit(self, plan: ReadPlan, condition: str, path: Path) -> Future[WrittenFile]:
        if self._start_session and not self._executors:
            session, server = self._start_session(), self._snapshot.server
            if not self._settings.spark.is_local and (warning := cluster.unencrypted_warning(session, server)):
                self._report.warning(warning)
            self._executors = Executors(session, self._settings, self._snapshot, self._run)
        return self._threads.submit((self._executors or self._reader).read, plan, condition, path)

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        try:
            if error is not None:
                self._end()
        finally:
            for pool in (self._threads, self._counter):
                pool.shutdown()
            self._reader.close()
        if isinstance(error, SourceFault):
            # A count that fails ends the snapshot, and with it the readers.
            failed = (count.exception() for count in self._counts if not count.cancelled())
            if (first := next(filter(None, failed), error)) is not error:
                raise first from error

    def _end(self) -> None:
        """Waits until no query runs. One may begin after a cancel, so they are cancelled until all have ended. The
        connections of a server that does not answer are cut, and executors that wait for it are given up."""
        self._reader.stop()
        pools, ended = (self._threads, self._counter), threading.Event()
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)

        def cancel_queries() -> None:
            while not ended.wait(CANCEL_SECONDS):
                cancel(self._snapshot.server)

        def give_up() -> None:
            while not ended.wait(HANG_UP_SECONDS):
                hang_up(self._snapshot.server)
                if self._executors:
                    self._executors.cancel()

        with ThreadPoolExecutor(2) as enders:
            enders.submit(cancel_queries)
            enders.submit(give_up)
            try:
                for pool in pools:
                    pool.shutdown()
            finally:
                ended.set()


class Executors:
    """Reads ranges of tables on the cluster, each in a job of one task; Spark tries it again if its worker is lost."""

    def __init__(self, spark: "SparkSession", settings: Settings, snapshot: Snapshot, run: int) -> None:
        self._context, self._master = spark.sparkContext, settings.spark.master
        self._snapshot, self._software = (snapshot.server, snapshot.exported, run), software("")
        self._group = f"bronze {run} {uuid.uuid4().hex}"

    def read(self, plan: ReadPlan, condition: str, path: Path) -> WrittenFile:
        """Reads one range of a table into one Parquet file. Raises SourceFault when the source fails."""
        started = time.monotonic()
        work = partial(_read, self._software, self._snapshot, plan, condition, path)
        self._context.setJobGroup(self._group, f"bronze.{plan.table.name}", interruptOnCancel=True)
        with cluster.jobs(self._master):
            # The work is in the function, not in the data: PySpark writes data to a file, and it has the password.
            (result,) = self._context.parallelize([0], 1).map(lambda _: work()).collect()
        if isinstance(result, Fault):
            raise result
        return replace(result, started=started)

    def cancel(self) -> None:
        """Ends the tasks that still read, with their connections."""
        with suppress(Exception):  # the JVM may be gone, and its executors with it
            self._context.cancelJobGroup(self._group)


def _read(
    of_driver: str, snapshot: tuple[Postgres, str, int], plan: ReadPlan, condition: str, path: Path
) -> WrittenFile | Fault:
    """Runs in an executor, which may have joined after all were checked, with the fingerprint of the driver's software.
    A fault is returned, not raised: Spark must not try again what only a new snapshot can mend."""
    if software("") != of_driver:
        return ClusterFault(f"worker {socket.gethostname()} has another version of this project: bring it up to date")
    forget_libpqs(but=NAME)
    with closing(Reader(*snapshot, Report(quiet=True))) as reader:
        try:
            return reader.read(plan, condition, path)
        except Fault as fault:
            placed = type(fault)(f"{fault}, on worker {socket.gethostname()}")
            placed.add_note(without_values(str(fault.__cause__)))  # a cause stays where it was raised
            return placed
