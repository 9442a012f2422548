"""A rule that more rows fail than may, as a run leaves it and a webhook reads it."""

import json
import re
import socket
from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.notify.outlets import notify
from tests.support.condominio import SALES
from tests.support.lake import Lake
from tests.support.process import Cli
from tests.support.webhook import SECRET, listening, outcome


def test_a_rule_whose_failures_pass_the_limit_is_alerted_once(condominio_lake: Lake) -> None:
    lake = condominio_lake
    lake.drop("transacoes_2.csv", SALES + "1,1,2023-01-01,1.00\n" + "1,1,2024-03-01,2.00\n" * 8, 11)
    with listening() as hook:
        given = {"ALERT__WEBHOOK_URL": hook.env["LAKEHOUSE_ALERT__WEBHOOK_URL"]}
        began = datetime.now(UTC)
        high, low = (lake.run("bronze", "silver", **given, ALERT__MAX_WARNED=limit) for limit in ("0.1", "0.09"))
        second = datetime.now(UTC)
        assert notify(high, outcome(started=began)) == [] == hook.bodies, "as many as may"
        assert notify(low, outcome(started=began)) == [] == hook.bodies, "the run before had as many"
        lake.drop("transacoes_3.csv", SALES + "1,1,2023-01-01,3.00\n", 12)
        lake.run()
        for targets, domain in ((("silver", "gold"), "condominio"), (("stream",), "")):
            assert notify(high, outcome(started=second, targets=targets, domain=domain)) == []
        assert notify(high, outcome(started=datetime.now(UTC))) == [], "no run of this call"
        assert notify(high, outcome(started=second, targets=("status",))) == []
    first, of_stream = hook.bodies
    warning = "silver.transacoes: 2 of 11 rows do not meet: the resident was registered before the transaction"
    assert first["warnings"] == of_stream["warnings"] == [warning]
    assert (first["status"], first["code"], first["kind"]) == ("warning", 0, "quality")
    assert first["message"] == "more rows than LAKEHOUSE_ALERT__MAX_WARNED=0.1 fail a rule"
    assert datetime.fromisoformat(first["last_success"]["condominio"]) > second.replace(microsecond=0)


def test_a_failure_is_sent_in_the_form_that_the_receiver_reads(cli: Cli) -> None:
    with listening() as hook:
        for form in ("json", "slack", "teams"):
            result = cli("silver", env=hook.env | {"LAKEHOUSE_ALERT__FORMAT": form, "LAKEHOUSE_ROOT": "<&>"})
            assert result.returncode == 4 and result.stderr.count("\n") == 1
    message = f"bronze has no complete run in {cli.folder}/<&>/bronze; run `make bronze` first"
    as_json, slack, teams = hook.bodies
    for name in ("time", "started"):
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", as_json[name])
    hint = "`make quality` shows the rules of the last complete run, which is untouched; correct the source"
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


def text_run(text: str, **more: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **more}]}


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


def test_wrong_settings_are_alerted_if_the_webhook_address_is_right(cli: Cli) -> None:
    with listening() as hook:
        (cli.folder / ".env").write_text(f"LAKEHOUSE_ALERT__WEBHOOK_URL={hook.env['LAKEHOUSE_ALERT__WEBHOOK_URL']}\n")
        result = cli("bronze", env={"LAKEHOUSE_ROOT": "s3://x", "LAKEHOUSE_ALERT__FORMAT": "json"})
        assert result.returncode == 2 and [body["kind"] for body in hook.bodies] == ["settings"]
        assert "object stores" in hook.bodies[0]["message"] and hook.bodies[0]["last_success"] == {}
        (cli.folder / ".env").write_text("what is this\n")
        assert cli("bronze", env=hook.env).returncode == 2 and "line 1" in hook.bodies[1]["message"]


def test_a_damaged_lake_is_alerted_too(cli: Cli) -> None:
    log = cli.folder / "lake/bronze/_runs/_delta_log"
    log.mkdir(parents=True)
    (cli.folder / "lake/bronze/.lock").touch()
    (log / "00000000000000000000.json").write_text("damaged")
    (log / "00000000000000000001.json").write_text('{"commitInfo": {}}')
    with listening() as hook:
        result = cli("silver", env=hook.env)
    (alert,) = hook.bodies
    assert (result.returncode, alert["code"], alert["domains"]) == (5, 5, []) and "_runs" in alert["message"]


def test_an_alert_names_no_keys_although_the_command_line_does(cli: Cli, condominio_lake: Lake) -> None:
    condominio_lake.drop("transacoes_2.csv", SALES + "77,1,2024-03-01,2.00\n" * 3, 11)
    with listening() as hook:
        result = cli("bronze", "silver", env=hook.env | {"LAKEHOUSE_CALL__DOMAIN": "condominio"})
    assert result.returncode == 4 and "imoveis:missing 3 (key 2; 3; 4)" in result.stderr
    (alert,) = hook.bodies
    assert "imoveis:missing 3; silver, gold and the CSV stay as they were" in alert["message"]
    finished = condominio_lake.last("silver").finished
    assert "key" not in json.dumps(alert) and alert["last_success"] == {"condominio": f"{finished:%Y-%m-%dT%H:%M:%SZ}"}
