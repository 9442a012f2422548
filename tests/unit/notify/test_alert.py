"""A webhook that is slow or broken changes no run."""

import threading
import time
from pathlib import Path

import pytest

from pipelines.notify.outlets import notify
from tests.support.lake import Lake
from tests.support.webhook import SECRET, listening, outcome


def test_a_webhook_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.notify.alert.WEBHOOK_SECONDS", 0.2)
    never = threading.Event()
    lakehouse = Lake(tmp_path, None, None)  # type: ignore[arg-type]
    with listening(lambda _: never.wait(20) or 200) as hook:
        settings = lakehouse.settings(ALERT__WEBHOOK_URL=hook.env["LAKEHOUSE_ALERT__WEBHOOK_URL"])
        began = time.monotonic()
        assert notify(settings, outcome(3)) == [
            "the alert was not sent to LAKEHOUSE_ALERT__WEBHOOK_URL: it cannot be reached, TimeoutError"
        ]
        monkeypatch.setattr("pipelines.notify.alert.WEBHOOK_SECONDS", 20)
        monkeypatch.setattr("pipelines.notify.alert.ALERT_SECONDS", 0.2)
        assert notify(settings, outcome(3)) == [
            "the alert was not sent to LAKEHOUSE_ALERT__WEBHOOK_URL: it took too long"
        ]
        assert time.monotonic() - began < 5
        never.set()


def test_any_error_while_alerting_is_a_warning_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakehouse = Lake(tmp_path, None, None)  # type: ignore[arg-type]
    monkeypatch.setattr("pipelines.notify.alert._send", lambda *_: 1 / 0)
    settings = lakehouse.settings(ALERT__WEBHOOK_URL=f"http://127.0.0.1:1/{SECRET}")
    assert notify(settings, outcome(3)) == ["alert: ZeroDivisionError"]
