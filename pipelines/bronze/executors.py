"""Reads the source on the executors of a cluster, one range per task."""

import socket
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from conf.settings import Postgres, Settings
from pipelines.core.console import Report
from pipelines.core.errors import ClusterFault, Fault
from pipelines.core.identity import NAME, software
from pipelines.sources.postgres.connection import forget_libpqs
from pipelines.spark.cluster import jobs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.sources.postgres.reader import ReadPlan, WrittenFile
    from pipelines.sources.postgres.snapshot import Snapshot


class Executors:
    """Reads ranges of tables on the cluster, each in a job of one task; Spark tries it again if its worker is lost."""

    def __init__(self, spark: "SparkSession", settings: Settings, snapshot: "Snapshot", run: int) -> None:
        self._context, self._master = spark.sparkContext, settings.spark.master
        self._snapshot, self._software = (snapshot.server, snapshot.exported, run), software("")
        self._group = f"bronze {run} {uuid.uuid4().hex}"

    def read(self, plan: "ReadPlan", condition: str, path: Path) -> "WrittenFile":
        """Reads one range of a table into one Parquet file. Raises SourceFault when the source fails."""
        started = time.monotonic()
        work = partial(_read, self._software, self._snapshot, plan, condition, path)
        self._context.setJobGroup(self._group, f"bronze.{plan.table.name}", interruptOnCancel=True)
        with jobs(self._master):
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
    of_driver: str, snapshot: tuple[Postgres, str, int], plan: "ReadPlan", condition: str, path: Path
) -> "WrittenFile | Fault":
    """Runs in an executor, which may have joined after all were checked, with the fingerprint of the driver's software.
    A fault is returned, not raised: Spark must not try again what only a new snapshot can mend."""
    from pipelines.sources.postgres.reader import Reader

    if software("") != of_driver:
        return ClusterFault(f"worker {socket.gethostname()} has another version of this project: bring it up to date")
    forget_libpqs(but=NAME)
    reader = Reader(*snapshot, Report(quiet=True))
    try:
        return reader.read(plan, condition, path)
    except Fault as fault:
        return type(fault)(f"{fault}, on worker {socket.gethostname()}")
    finally:
        reader.close()
