"""Reads the source on the executors of a cluster, a range a task."""

import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from conf.settings import Postgres, Settings
from pipelines.core.console import Report
from pipelines.core.errors import ClusterFault, Fault
from pipelines.core.identity import NAME
from pipelines.sources.postgres.connection import forget_libpqs
from pipelines.spark.cluster import jobs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.sources.postgres.reader import ReadPlan, WrittenFile


@dataclass(frozen=True)
class ReadTask:
    """One range of a table for an executor to read in the run's snapshot."""

    server: Postgres
    exported: str
    software: str
    run: int
    plan: "ReadPlan"
    condition: str
    path: Path


class Executors:
    """Reads ranges of source tables on the cluster, each in a job of one task, which is tried again where its worker is
    lost."""

    def __init__(self, spark: "SparkSession", settings: Settings, server: Postgres, exported: str, run: int) -> None:
        from pipelines.core.identity import software

        self._context, self._master = spark.sparkContext, settings.spark.master
        self._server, self._exported, self._run = server, exported, run
        self._software = software("")
        self._group = f"bronze {run} {uuid.uuid4().hex}"

    def read(self, one: "ReadPlan", condition: str, path: Path) -> "WrittenFile":
        """One range of one table as one Parquet file. Raises SourceFault where the source fails."""
        started = time.monotonic()
        task = ReadTask(self._server, self._exported, self._software, self._run, one, condition, path)
        self._context.setJobGroup(self._group, f"bronze.{one.table.name}", interruptOnCancel=True)
        with jobs(self._master):
            # Not as the data: PySpark puts that into a file, and it has the password.
            (found,) = self._context.parallelize([0], 1).map(lambda _: _read(task)).collect()
        if isinstance(found, Fault):
            raise found
        return replace(found, started=started)

    def cancel(self) -> None:
        """Ends what still reads, with its connection."""
        with suppress(Exception):  # the JVM may be gone, and its executors with it
            self._context.cancelJobGroup(self._group)


def _read(task: ReadTask) -> "WrittenFile | Fault":
    """In an executor, which may have come after all were asked. A fault is an answer: Spark is not to try again what
    only a new snapshot mends."""
    from pipelines.core.identity import software
    from pipelines.sources.postgres.reader import Reader

    if software("") != task.software:
        return ClusterFault(f"worker {socket.gethostname()} has another version of this project: bring it up to date")
    forget_libpqs(but=NAME)
    reader = Reader(task.server, task.exported, task.run, Report(quiet=True))
    try:
        return reader.read(task.plan, task.condition, task.path)
    except Fault as fault:
        return type(fault)(f"{fault}, on worker {socket.gethostname()}")
    finally:
        reader.close()
