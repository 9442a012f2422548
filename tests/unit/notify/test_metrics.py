"""The file of metrics is written at once, by many."""

import os
import threading
from pathlib import Path

import pytest

from pipelines.notify.outlets import notify
from tests.support.lake import Lake
from tests.support.metrics import CODE, measured, samples
from tests.support.webhook import outcome


def test_nobody_sees_half_a_file_and_two_calls_at_a_time_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, path = measured(Lake(tmp_path, None, None))  # type: ignore[arg-type]
    strange = 'a"b\\c\nd'
    notify(settings, outcome(targets=("maintain",), domain=strange))
    assert samples(path)[CODE] == {("um", "maintain", strange): 0}
    before = path.open()
    mask = os.umask(0o077)
    try:
        calls = [
            threading.Thread(target=notify, args=(settings, outcome(1, targets=("stream",), domain=f"d{number}")))
            for number in range(8)
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    finally:
        os.umask(mask)
    assert len(samples(path)[CODE]) == 9
    assert before.read().count(CODE + "{") == 1, "who read it then has it as it was"
    monkeypatch.setattr(Path, "replace", lambda *_: 1 / 0)
    old = path.read_text()
    assert notify(settings, outcome(5)) == ["metrics: ZeroDivisionError"]
    assert path.read_text() == old and [*path.parent.iterdir()] == [path]


def test_a_damaged_file_does_not_stop_the_next_one(tmp_path: Path) -> None:
    settings, path = measured(Lake(tmp_path, None, None))  # type: ignore[arg-type]
    for domain in ("a", "b"):
        notify(settings, outcome(3, targets=("maintain",), domain=domain))
    path.write_text(path.read_text().replace('domain="b"', 'domain="b'))
    assert notify(settings, outcome(6, targets=("maintain",), domain="c")) == []
    assert samples(path)[CODE]["um", "maintain", "c"] == 6
