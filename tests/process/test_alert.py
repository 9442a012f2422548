"""What a webhook is told of failures and of rules, and what a run is where it cannot be told: what it is without it."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.condominio import PARENTS, SALES
from tests.support.lake import Lake
from tests.support.process import Cli, clean_environment
from tests.support.webhook import SECRET, Hook, listening


def text_run(text: str, **more: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **more}]}


def test_a_failure_is_told_in_the_form_that_the_receiver_reads(cli: Cli) -> None:
    with listening() as hook:
        for form in ("json", "slack", "teams"):
            result = cli("silver", env=hook.env | {"LAKEHOUSE_ALERT__FORMAT": form, "LAKEHOUSE_ROOT": "<&>"})
            assert result.returncode == 4 and result.stderr.count("\n") == 1
    message = f"bronze has no complete run in {cli.folder}/<&>/bronze; run `make bronze` first"
    as_json, slack, teams = hook.bodies
    for name in ("time", "started"):
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", as_json[name])
    hint = "`make quality` shows the rules of the last complete run, which is untouched; mend the source"
    assert as_json == {
        "status": "failed",
        "targets": "silver",
        "domains": ["cartoes"],
        "host": socket.gethostname(),
        "code": 4,
        "kind": "quality",
        "message": message,
        "started": as_json["started"],
        "time": as_json["time"],
        "last_success": {"cartoes": None},
        "hint": hint,
        "warnings": [],
    }
    title = f"lakehouse on {socket.gethostname()}: silver: quality, exit code 4"
    *lines, last = slack.pop("text").split("\n")
    escaped = message.replace("<&>", "&lt;&amp;&gt;")
    assert (slack, lines) == ({}, [title, escaped, "cartoes: last success never"])
    assert re.fullmatch(rf"at 20\S+Z; {re.escape(hint)}", last)
    body = teams["attachments"][0]["content"].pop("body")
    card = {"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.2"}
    kind = "application/vnd.microsoft.card.adaptive"
    assert teams == {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}
    assert body[:-1] == [text_run(title, weight="Bolder"), text_run(message), text_run("cartoes: last success never")]
    assert body[-1]["inlines"][0]["text"].endswith(hint)


@pytest.mark.parametrize(("code", "tries"), [(500, 2), (404, 1), (302, 1), (307, 1)])
def test_what_the_webhook_answers_changes_no_exit_code(cli: Cli, code: int, tries: int) -> None:
    with listening(lambda _: code) as hook:
        result = cli("silver", env=hook.env | {"LAKEHOUSE_LOG": "debug"})
    warning = f"warning: the alert was not sent to LAKEHOUSE_ALERT__WEBHOOK_URL: it answered {code}\n"
    assert result.returncode == 4 and result.stderr.endswith(warning) and result.stderr.count("warning") == 1
    assert len(hook.bodies) == tries and {"followed": f"/{SECRET}"} not in hook.bodies
    assert SECRET not in result.stdout + result.stderr and str(hook.port) not in result.stdout + result.stderr


def test_a_webhook_that_is_not_there_changes_no_exit_code(cli: Cli) -> None:
    with listening() as hook:
        pass
    for env in (hook.env, {"LAKEHOUSE_ALERT__WEBHOOK_URL": f"https://[{SECRET}/"}):
        result = cli("silver", env=env | {"LAKEHOUSE_LOG": "debug"})
        assert result.returncode == 4 and result.stderr.count("warning: the alert was not sent to LAKEHOUSE_ALERT") == 1
        assert SECRET not in result.stdout + result.stderr


def test_the_address_is_a_secret(cli: Cli) -> None:
    name = "LAKEHOUSE_ALERT__WEBHOOK_URL"
    on_line = cli("status", "--set", f"{name}=http://127.0.0.1/{SECRET}")
    assert on_line.returncode == 2 and f"--set {name}: anybody can read a command line" in on_line.stderr
    wrong = cli("status", env={name: f"ftp://x/{SECRET}"})
    assert wrong.returncode == 2 and f"{name} must be an http or https address" in wrong.stderr
    assert SECRET not in on_line.stderr + wrong.stderr
    (cli.folder / "credentials").mkdir()
    with listening() as hook:
        (cli.folder / "credentials" / name.lower()).write_text(hook.env[name] + "\n")
        result = cli("silver", env={"CREDENTIALS_DIRECTORY": str(cli.folder / "credentials")})
    assert result.returncode == 4 and len(hook.bodies) == 1


def test_wrong_settings_are_told_where_the_address_is_right(cli: Cli) -> None:
    with listening() as hook:
        (cli.folder / ".env").write_text(f"LAKEHOUSE_ALERT__WEBHOOK_URL={hook.env['LAKEHOUSE_ALERT__WEBHOOK_URL']}\n")
        result = cli("bronze", env={"LAKEHOUSE_ROOT": "s3://x", "LAKEHOUSE_ALERT__FORMAT": "json"})
        assert result.returncode == 2 and [body["kind"] for body in hook.bodies] == ["settings"]
        assert "object stores" in hook.bodies[0]["message"] and hook.bodies[0]["last_success"] == {}
        (cli.folder / ".env").write_text("what is this\n")
        assert cli("bronze", env=hook.env).returncode == 2 and "line 1" in hook.bodies[1]["message"]


def test_a_lake_that_cannot_be_read_is_told_too(cli: Cli) -> None:
    log = cli.folder / "lake/bronze/_runs/_delta_log"
    log.mkdir(parents=True)
    (cli.folder / "lake/bronze/.lock").touch()
    (log / "00000000000000000000.json").write_text("damaged")
    with listening() as hook:
        result = cli("silver", env=hook.env)
    (alert,) = hook.bodies
    assert (result.returncode, alert["code"], alert["domains"]) == (5, 5, []) and "_runs" in alert["message"]


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


def test_what_a_person_does_by_hand_is_not_told_and_what_stops_a_run_from_outside_is(cli: Cli) -> None:
    with listening() as hook:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            with begun(cli, hook, "bronze") as process:
                assert process.stderr and "trying again" in process.stderr.readline()
                process.send_signal(number)
                assert process.wait(30) == 128 + number
        assert [(body["code"], body["kind"], body["message"]) for body in hook.bodies] == [(143, "stopped", "stopped")]
        hook.bodies.clear()
        assert cli("status", "export", env=hook.env).returncode == 4
        assert cli("brnze", env=hook.env).returncode == 2
        assert hook.bodies == [], "who asks at a terminal sees the answer there"


def test_who_stops_what_is_told_does_not_wait_and_sees_how_the_run_ended(cli: Cli) -> None:
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


def test_a_failure_is_told_without_the_keys_that_the_command_line_names(cli: Cli) -> None:
    lakehouse = Lake(cli.folder, None, None, "condominio")  # type: ignore[arg-type]
    for at, (name, text) in enumerate(PARENTS.items()):
        lakehouse.drop(name, text, at)
    lakehouse.drop("transacoes.csv", SALES + "77,1,2024-03-01,2.00\n" * 3, 10)
    with listening() as hook:
        result = cli("bronze", "silver", env=hook.env | {"DOMAIN": "condominio"})
    assert result.returncode == 4 and "imoveis:missing 3 (key 1; 2; 3)" in result.stderr
    (alert,) = hook.bodies
    assert "imoveis:missing 3; silver, gold and the CSV stay as they were" in alert["message"]
    assert "key" not in json.dumps(alert) and alert["last_success"] == {"condominio": None}


def test_who_wants_to_know_nothing_pays_nothing(cli: Cli) -> None:
    script = (
        "import sys; from pipelines.cli.main import main; code = main(['silver']);"
        "sys.exit(code if not {'pipelines.notify.alert', 'pipelines.notify.metrics', 'urllib.request'} & set(sys.modules) else 99)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=cli.folder, env=clean_environment(cli.folder))
    assert result.returncode == 4
