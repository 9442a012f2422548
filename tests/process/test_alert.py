"""What a webhook is told of failures and of rules, and what a run is where it cannot be told: what it is without it."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.notify.outcome import Outcome
from pipelines.notify.outlets import notify
from tests.condominio import PARENTS, SALES, drop_all
from tests.conftest import Cli, Lake, clean_environment

SECRET = "s3cret-path"
NOW = datetime(2026, 11, 21, 2, 15, tzinfo=UTC)
Answer = Callable[["Hook"], int]


@dataclass
class Hook:
    """What a webhook on this machine was sent."""

    port: int
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {"LAKEHOUSE_ALERT__WEBHOOK_URL": f"http://127.0.0.1:{self.port}/{SECRET}", "no_proxy": "127.0.0.1"}


@contextmanager
def listening(answer: Answer = lambda hook: 200) -> Iterator[Hook]:
    """A server that takes alerts and says what `answer` says; a redirect leads to itself."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert self.path == f"/{SECRET}" and self.headers["Content-Type"] == "application/json"
            hook.bodies.append(json.loads(text))
            self.send_response(answer(hook))
            self.send_header("Location", f"http://127.0.0.1:{hook.port}/{SECRET}")
            self.end_headers()

        def do_GET(self) -> None:
            hook.bodies.append({"followed": self.path})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook = Hook(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def outcome(code: int = 0, started: datetime = NOW, **given: Any) -> Outcome:
    usual: dict[str, Any] = {"targets": ("gold",), "domain": "", "kind": "k", "line": "", "seconds": 1.0}
    return Outcome(**usual | given, code=code, started=started)


def text_run(text: str, **more: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **more}]}


def test_a_failure_is_told_in_the_form_that_the_receiver_reads(cli: Cli) -> None:
    with listening() as hook:
        for form in ("json", "slack", "teams"):
            done = cli("silver", env=hook.env | {"LAKEHOUSE_ALERT__FORMAT": form, "LAKEHOUSE_ROOT": "<&>"})
            assert done.returncode == 4 and done.stderr.count("\n") == 1
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
        done = cli("silver", env=hook.env | {"LAKEHOUSE_LOG": "debug"})
    told = f"warning: the alert was not sent to LAKEHOUSE_ALERT__WEBHOOK_URL: it answered {code}\n"
    assert done.returncode == 4 and done.stderr.endswith(told) and done.stderr.count("warning") == 1
    assert len(hook.bodies) == tries and {"followed": f"/{SECRET}"} not in hook.bodies
    assert SECRET not in done.stdout + done.stderr and str(hook.port) not in done.stdout + done.stderr


def test_a_webhook_that_is_not_there_changes_no_exit_code(cli: Cli) -> None:
    with listening() as hook:
        pass
    for env in (hook.env, {"LAKEHOUSE_ALERT__WEBHOOK_URL": f"https://[{SECRET}/"}):
        done = cli("silver", env=env | {"LAKEHOUSE_LOG": "debug"})
        assert done.returncode == 4 and done.stderr.count("warning: the alert was not sent to LAKEHOUSE_ALERT") == 1
        assert SECRET not in done.stdout + done.stderr


def test_a_webhook_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.notify.alert.PATIENCE", 0.2)
    never = threading.Event()
    lakehouse = Lake(tmp_path, None, None)  # type: ignore[arg-type]
    with listening(lambda _: never.wait(20) or 200) as hook:
        settings = lakehouse.settings(ALERT__WEBHOOK_URL=hook.env["LAKEHOUSE_ALERT__WEBHOOK_URL"])
        began = time.monotonic()
        assert notify(settings, outcome(3)) == [
            "the alert was not sent to LAKEHOUSE_ALERT__WEBHOOK_URL: it cannot be reached, TimeoutError"
        ]
        monkeypatch.setattr("pipelines.notify.alert.PATIENCE", 20)
        monkeypatch.setattr("pipelines.notify.alert.LIMIT", 0.2)
        assert notify(settings, outcome(3)) == [
            "the alert was not sent to LAKEHOUSE_ALERT__WEBHOOK_URL: it took too long"
        ]
        assert time.monotonic() - began < 5
        never.set()


def test_whatever_goes_wrong_while_it_is_told_is_a_warning_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakehouse = Lake(tmp_path, None, None)  # type: ignore[arg-type]
    monkeypatch.setattr("pipelines.notify.alert._send", lambda *_: 1 / 0)
    settings = lakehouse.settings(ALERT__WEBHOOK_URL=f"http://127.0.0.1:1/{SECRET}")
    assert notify(settings, outcome(3)) == ["alert: ZeroDivisionError"]


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
        done = cli("silver", env={"CREDENTIALS_DIRECTORY": str(cli.folder / "credentials")})
    assert done.returncode == 4 and len(hook.bodies) == 1


def test_wrong_settings_are_told_where_the_address_is_right(cli: Cli) -> None:
    with listening() as hook:
        (cli.folder / ".env").write_text(f"LAKEHOUSE_ALERT__WEBHOOK_URL={hook.env['LAKEHOUSE_ALERT__WEBHOOK_URL']}\n")
        done = cli("bronze", env={"LAKEHOUSE_ROOT": "s3://x", "LAKEHOUSE_ALERT__FORMAT": "json"})
        assert done.returncode == 2 and [one["kind"] for one in hook.bodies] == ["settings"]
        assert "object stores" in hook.bodies[0]["message"] and hook.bodies[0]["last_success"] == {}
        (cli.folder / ".env").write_text("what is this\n")
        assert cli("bronze", env=hook.env).returncode == 2 and "line 1" in hook.bodies[1]["message"]


def test_a_lake_that_cannot_be_read_is_told_too(cli: Cli) -> None:
    log = cli.folder / "lake/bronze/_runs/_delta_log"
    log.mkdir(parents=True)
    (cli.folder / "lake/bronze/.lock").touch()
    (log / "00000000000000000000.json").write_text("damaged")
    with listening() as hook:
        done = cli("silver", env=hook.env)
    (told,) = hook.bodies
    assert (done.returncode, told["code"], told["domains"]) == (5, 5, []) and "_runs" in told["message"]


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
        assert [(one["code"], one["kind"], one["message"]) for one in hook.bodies] == [(143, "stopped", "stopped")]
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


def test_a_rule_that_more_rows_fail_than_may_is_told_once(condominio: Lake) -> None:
    drop_all(condominio, "1,1,2023-01-01,1.00", *["1,1,2024-03-01,2.00"] * 9)
    with listening() as hook:
        given = {"ALERT__WEBHOOK_URL": hook.env["LAKEHOUSE_ALERT__WEBHOOK_URL"]}
        began = datetime.now(UTC)
        high, low = (condominio.run(**given, ALERT__MAX_WARNED=limit) for limit in ("0.1", "0.09"))
        second = datetime.now(UTC)
        assert notify(high, outcome(started=began)) == [] == hook.bodies, "as many as may"
        assert notify(low, outcome(started=began)) == [] == hook.bodies, "the run before had as many"
        condominio.drop("transacoes_2.csv", SALES + "1,1,2023-01-01,3.00\n", 11)
        condominio.run()
        for targets, domain in ((("silver", "gold"), "condominio"), (("stream",), "")):
            assert notify(high, outcome(started=second, targets=targets, domain=domain)) == []
        assert notify(high, outcome(started=datetime.now(UTC))) == [], "no run of this call"
        assert notify(high, outcome(started=second, targets=("status",))) == []
    first, of_stream = hook.bodies
    said = "silver.transacoes: 2 of 11 rows do not meet: the resident was registered before the transaction"
    assert first["warnings"] == of_stream["warnings"] == [said]
    assert (first["status"], first["code"], first["kind"]) == ("warning", 0, "quality")
    assert first["message"] == "more rows than LAKEHOUSE_ALERT__MAX_WARNED=0.1 fail a rule"
    assert datetime.fromisoformat(first["last_success"]["condominio"]) > second.replace(microsecond=0)


def test_a_failure_is_told_without_the_keys_that_the_command_line_names(cli: Cli) -> None:
    lakehouse = Lake(cli.folder, None, None, "condominio")  # type: ignore[arg-type]
    for at, (name, text) in enumerate(PARENTS.items()):
        lakehouse.drop(name, text, at)
    lakehouse.drop("transacoes.csv", SALES + "77,1,2024-03-01,2.00\n" * 3, 10)
    with listening() as hook:
        done = cli("bronze", "silver", env=hook.env | {"DOMAIN": "condominio"})
    assert done.returncode == 4 and "imoveis:missing 3 (key 1; 2; 3)" in done.stderr
    (told,) = hook.bodies
    assert "imoveis:missing 3; silver, gold and the CSV stay as they were" in told["message"]
    assert "key" not in json.dumps(told) and told["last_success"] == {"condominio": None}


def test_who_wants_to_know_nothing_pays_nothing(cli: Cli) -> None:
    script = (
        "import sys; from pipelines.cli.main import main; code = main(['silver']);"
        "sys.exit(code if not {'pipelines.notify.alert', 'pipelines.notify.metrics', 'urllib.request'} & set(sys.modules) else 99)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=cli.folder, env=clean_environment(cli.folder))
    assert done.returncode == 4
