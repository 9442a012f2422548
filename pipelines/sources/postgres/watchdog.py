"""Tells a slow server from one that will never answer: nothing in TCP says so while both ends keep the line open."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from conf.settings import Postgres
from pipelines.core.errors import SourceFault
from pipelines.core.identity import application_name
from pipelines.sources.postgres.connection import hang_up, pinned

SILENCE = 30.0  # seconds without a row after which the server is asked


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
        self._heard = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A query that waits for the server while the context lasts."""
        self.heard()
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def heard(self) -> None:
        """Something came from the server."""
        self._heard = time.monotonic()

    def close(self) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(SILENCE / 10):
            if self._waiting and time.monotonic() - self._heard > SILENCE:
                if self._works() or self._ended.is_set():
                    self.heard()
                else:
                    hang_up(self._server)

    def _works(self) -> bool:
        try:
            with pinned(self._server) as connection, connection.cursor() as cursor:
                cursor.execute(AT_WORK, (application_name(),))
                return bool(cursor.fetchone()[0])
        except SourceFault:
            return False
