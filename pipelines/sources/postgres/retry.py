"""Tries again what may pass, for as long as the settings say."""

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential_jitter

from pipelines.core.console import Report
from pipelines.core.errors import TransientFault
from pipelines.sources.postgres.connection import PATIENCE

Result = TypeVar("Result")


def with_retries(work: Callable[[], Result], seconds: int, report: Report) -> Result:
    """What `work` returns; after a PassingFault it is done again, with growing pauses, until it has failed for
    `seconds`. A load that went well for hours before it failed has them all, too."""
    began = started = time.monotonic()
    tries = 0

    def attempt() -> Result:
        nonlocal started
        started = time.monotonic()
        return work()

    def stop(state: RetryCallState) -> bool:
        nonlocal began, tries
        now = time.monotonic()
        if not tries or now - started > seconds:
            began, tries = max(started, now - PATIENCE), 0
        tries += 1
        return now + state.upcoming_sleep > began + seconds

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        report.again(f"source: {error}; trying again in {state.upcoming_sleep:.0f} s")

    retrying = Retrying(
        retry=retry_if_exception_type(TransientFault),
        wait=wait_exponential_jitter(initial=1, max=10),
        stop=stop,
        before_sleep=say,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except TransientFault as fault:
        if tries == 1:
            raise
        said = f"tried {tries} times in {time.monotonic() - began:.0f} s"
        raise TransientFault(f"{fault}; {said}, run it again when the source is back") from fault
