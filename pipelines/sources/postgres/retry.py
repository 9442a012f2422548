"""Tries work again after a fault that may pass, for as long as the settings say."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from pipelines.core.console import Report
from pipelines.core.errors import TransientFault
from pipelines.sources.postgres.connection import CONNECT_SECONDS

LONGEST_PAUSE = 10  # seconds

Result = TypeVar("Result")


def with_retries(work: Callable[[], Result], seconds: int, report: Report) -> Result:
    """What `work` returns. After a TransientFault it is tried again, with growing pauses, until it has failed for
    `seconds`. An attempt that lasted longer than that starts the count anew: a load of hours is tried again, too.

    Raises the last TransientFault, which then says how often and how long it was tried.
    """
    failing_since, tries = time.monotonic(), 0
    while True:
        started = time.monotonic()
        try:
            return work()
        except TransientFault as fault:
            now = time.monotonic()
            if not tries or now - started > seconds:
                failing_since, tries = max(started, now - CONNECT_SECONDS), 0
            tries += 1
            pause = min(LONGEST_PAUSE, 2 ** min(tries - 1, 4) + random.random())  # noqa: S311 (no secret)
            if now + pause > failing_since + seconds:
                if tries == 1:
                    raise
                effort = f"tried {tries} times in {now - failing_since:.0f} s"
                raise TransientFault(f"{fault}; {effort}, run it again when the source is back") from fault
            report.again(f"source: {fault}; trying again in {pause:.0f} s")
            time.sleep(pause)
