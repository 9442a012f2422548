"""Signals wait for the end of a commit point."""

import signal

from pipelines.core.signals import deferred_signals


def test_a_signal_in_the_middle_of_the_commit_point_waits_for_it() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with deferred_signals():
            signal.raise_signal(signal.SIGTERM)
            assert came == []
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
