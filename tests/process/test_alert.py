"""What a webhook is told of failures and of rules, and what a run is where it cannot be told: what it is without it."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.here import CliHere
from tests.support.process import Cli, clean_environment
from tests.support.webhook import Hook, listening


@contextmanager
def begun(cli: Cli, hook: Hook, target: str) -> Iterator["subprocess.Popen[str]"]:
    """A run that has begun, of a server that is not there: bronze tries again and again."""
    nobody = {"HOST": "127.0.0.1", "PORT": "1", "DATABASE": "x", "USER": "x"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", target],
        cwd=cli.folder,
        env=clean_environment(cli.folder) | hook.env | {f"LAKEHOUSE_POSTGRES__{name}": nobody[name] for name in nobody},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_stopping_by_hand_is_not_alerted_and_stopping_from_outside_is(cli: Cli) -> None:
    with listening() as hook:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            with begun(cli, hook, "bronze") as process:
                assert process.stderr and "trying again" in process.stderr.readline()
                process.send_signal(number)
                assert process.wait(30) == 128 + number
        assert [(body["code"], body["kind"], body["message"]) for body in hook.bodies] == [(143, "stopped", "stopped")]
        hook.bodies.clear()
        here = CliHere(cli.folder)
        assert here("status", "export", env=hook.env).returncode == 4
        assert here("brnze", env=hook.env).returncode == 2
        assert hook.bodies == [], "who asks at a terminal sees the answer there"


def test_a_signal_while_an_alert_is_sent_ends_the_wait_and_keeps_the_exit_code(cli: Cli) -> None:
    asked, never = threading.Event(), threading.Event()

    def answer(_: Hook) -> int:
        asked.set()
        never.wait(20)
        return 200

    for number in (signal.SIGINT, signal.SIGTERM):
        with listening(answer) as hook, begun(cli, hook, "silver") as process:
            assert asked.wait(20)
            process.send_signal(number)
            assert process.wait(3) == 4
            assert process.stderr and process.stderr.read().count("\n") == 1
            never.set()
        asked.clear()
        never.clear()


def test_without_alerts_and_metrics_their_modules_are_not_imported(cli: Cli) -> None:
    script = (
        "import sys; from pipelines.cli.main import main; code = main(['silver']);"
        "sys.exit(code if not {'pipelines.notify.alert', 'pipelines.notify.metrics', 'urllib.request'} & set(sys.modules) else 99)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=cli.folder, env=clean_environment(cli.folder))
    assert result.returncode == 4
