"""The Spark session of a call: started when a layer asks for it, or beside bronze where silver surely will."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.core.signals import deferred_signals
from pipelines.lake import run_log
from pipelines.lake.runs import Mode

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class LazySession:
    """At most one session while the context lasts: `given` by the caller, or started here and ended with the context,
    whatever signal comes, so that no JVM is left behind. `surely`: it will be asked for where a table is read whole.

    To be asked by one thread.
    """

    def __init__(self, settings: Settings, given: "SparkSession | None", surely: bool, report: Report) -> None:
        self._settings, self._given, self._surely, self._report = settings, given, surely, report
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="spark")
        self._future: Future[SparkSession] | None = None
        self._unwanted = threading.Event()
        self._started = ExitStack()

    def __enter__(self) -> "LazySession":
        return self

    def __exit__(self, *raised: Any) -> bool:
        self._unwanted.set()
        with deferred_signals():
            self._starter.shutdown()
        return bool(self._started.__exit__(*raised))

    def ahead(self, rows: int, surely: bool = False) -> None:
        """Lets the session start that will have so many rows of bronze to work on."""
        if (surely or self._surely) and not self._given:
            self._begun(rows)

    def get(self) -> "SparkSession":
        """The session, when it has started."""
        if self._given:
            return self._given
        self._report.progress("spark", "start", 0)
        return self._begun(None).result()

    def end(self) -> None:
        """Nobody will ask again."""
        if self._future and self._future.done():
            self._started.close()

    def _begun(self, rows: int | None) -> "Future[SparkSession]":
        from pipelines.spark.session import brief, session

        if self._future is None:
            settings = brief(self._settings, _rows_to_come(self._settings) if rows is None else rows)
            starting = session(settings, unwanted=self._unwanted)
            self._future = self._starter.submit(self._started.enter_context, starting)
        return self._future


def _rows_to_come(settings: Settings) -> int:
    """The rows that silver and gold have work with: all, unless bronze followed what changed."""
    rows = 0
    for domain in catalogue.domains():
        bronze, silver = (run_log.last_run(settings.layer_path(layer), domain) for layer in LAYERS[:2])
        tables = bronze.tables if bronze else ()
        if not silver or any(done.mode is Mode.FULL for done in tables):
            rows += sum(done.rows_out for done in tables)
    return rows
