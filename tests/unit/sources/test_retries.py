"""Work on a source that fails for a while is tried again: how often, and after which pauses."""

import random
import re
from types import SimpleNamespace

import pytest

from pipelines.core.console import Report
from pipelines.core.errors import SourceFault, TransientFault
from pipelines.sources.postgres import snapshot


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, on a clock that only they move, and that other threads of this process do not see."""
    made = list[float]()
    monkeypatch.setattr(snapshot, "time", SimpleNamespace(monotonic=lambda: 100 + sum(made), sleep=made.append))
    monkeypatch.setattr(random, "random", lambda: 0.5)
    return made


def retried(seconds: int, *faults: Exception) -> str:
    """The result of work that fails with one fault after the other, then succeeds."""
    coming = iter(faults)

    def work() -> str:
        if fault := next(coming, None):
            raise fault
        return "result"

    with Report() as report:
        return snapshot.with_retries(work, seconds, report)


def test_pauses_grow_up_to_the_longest(pauses: list[float]) -> None:
    assert retried(60, *[TransientFault("refused")] * 6) == "result"
    assert pauses == [1.5, 2.5, 4.5, 8.5, 10, 10]


def test_the_last_fault_says_how_often_and_how_long_it_was_tried(pauses: list[float]) -> None:
    with pytest.raises(TransientFault, match=re.escape("refused; tried 2 times in 2 s, run it again when the source")):
        retried(3, *[TransientFault("refused")] * 3)
    assert pauses == [1.5]


def test_without_time_to_retry_and_for_other_faults_there_is_one_try(pauses: list[float]) -> None:
    with pytest.raises(TransientFault, match=r"^refused$"):
        retried(0, TransientFault("refused"))
    with pytest.raises(SourceFault, match=r"^no such table$"):
        retried(60, SourceFault("no such table"))
    assert pauses == []
