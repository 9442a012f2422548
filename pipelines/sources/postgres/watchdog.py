"""Tells a slow server from one that will never answer: TCP does not say so while both ends keep the line open."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from conf.settings import Postgres
from pipelines.core.errors import SourceFault
from pipelines.core.identity import application_name
from pipelines.sources.postgres.connection import hang_up, pinned

SILENCE_SECONDS = 30.0  # without a row; then the server is asked


# A query that cannot send is not at work: its rows would have come.
AT_WORK = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %s AND usename = current_user
  AND pid <> pg_backend_pid() AND state IN ('active', 'disabled')
  AND wait_event IS DISTINCT FROM 'ClientWrite')
"""


class Watchdog:
    """Asks a silent server, on a new connection, whether it works for us; if not, ends our connections to it."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._waiting = 0
        self._last_heard = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A query that waits for the server while the context lasts. Its begin and its end count as heard."""
        self._change_waiting(1)
        try:
            yield
        finally:
            self._change_waiting(-1)

    def close(self) -> None:
        self._closed.set()

    def _change_waiting(self, by: int) -> None:
        with self._lock:
            self._waiting += by
            self._last_heard = time.monotonic()

    def _watch(self) -> None:
        while not self._closed.wait(SILENCE_SECONDS / 10):
            asked = time.monotonic()
            if not self._waiting or asked - self._last_heard <= SILENCE_SECONDS:
                continue
            at_work = self._server_is_at_work()
            # An answer may come while we ask; then nothing is at work, and nothing is wrong.
            if at_work or self._last_heard > asked or self._closed.is_set():
                self._last_heard = time.monotonic()
            else:
                hang_up(self._server)

    def _server_is_at_work(self) -> bool:
        try:
            with pinned(self._server) as connection, connection.cursor() as cursor:
                cursor.execute(AT_WORK, (application_name(),))
                return bool(cursor.fetchone()[0])
        except SourceFault:
            return False
