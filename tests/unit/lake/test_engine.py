"""DuckDB inside a process that listens to signals."""

import os
import signal
import threading
import time

import pytest

from pipelines.lake.engine import engine


def test_a_signal_is_heard_while_duckdb_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    began = time.monotonic()
    try:
        with pytest.raises(SystemExit), engine("a long query") as connection:
            timer.start()
            connection.execute(
                "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE a.range * b.range % 7 = 3"
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - began < 10
