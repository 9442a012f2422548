"""The Spark session of a call: started when a layer asks for it, or beside bronze if silver surely will."""

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
    """At most one session while the context lasts: `given` by the caller, who ends it, or started here and ended with
    the context whatever signal comes, so that no JVM is left behind.

    `is_expected`: it will be asked for if a table is read in full. Only one thread may use it.
    """

    def __init__(self, settings: Settings, given: "SparkSession | None", is_expected: bool, report: Report) -> None:
        self._settings, self._given, self._is_expected, self._report = settings, given, is_expected, report
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

    def start_ahead(self, rows: int, surely: bool = False) -> None:
        """Starts the session in the background if it is expected, or `surely` needed, for about so many rows."""
        if (surely or self._is_expected) and not self._given:
            self._start(rows)

    def get(self) -> "SparkSession":
        """The session; waits until it has started."""
        if self._given:
            return self._given
        self._report.progress("spark", "start", 0)
        return self._start(None).result()

    def end(self) -> None:
        """Ends a session that was started here: nobody will ask for it again."""
        if self._future and self._future.done():
            self._started.close()

    def _start(self, rows: int | None) -> "Future[SparkSession]":
        from pipelines.spark.session import compiling_less, session

        if self._future is None:
            settings = compiling_less(self._settings, _expected_rows(self._settings) if rows is None else rows)
            starting = session(settings, unwanted=self._unwanted)
            self._future = self._starter.submit(self._started.enter_context, starting)
        return self._future


def _expected_rows(settings: Settings) -> int:
    """The number of rows that silver and gold will read: all of a domain, unless its bronze applied what changed."""
    rows = 0
    for domain in catalogue.domains():
        bronze, silver = (run_log.last_run(settings.layer_path(layer), domain) for layer in LAYERS[:2])
        tables = bronze.tables if bronze else ()
        if not silver or any(table.mode is Mode.FULL for table in tables):
            rows += sum(table.rows_out for table in tables)
    return rows
