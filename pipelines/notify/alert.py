"""Sends a webhook a failure, or a rule that too many rows fail. No row, no key of a row, no secret."""

import json
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError

from conf.contract import Severity
from conf.settings import Settings
from pipelines.core.errors import Fault
from pipelines.core.names import LAYERS
from pipelines.core.texts import visible
from pipelines.lake import run_log
from pipelines.notify.outcome import Outcome
from pipelines.sources.domains import in_use, known_domains

WEBHOOK_SECONDS, ALERT_SECONDS = 4, 9  # of a wait within an attempt, of the whole alert
BY_HAND = (129, 130)  # a person closed the terminal, or pressed Ctrl-C
HINTS = {
    0: "`make quality` shows the rules and how to see the rows",
    1: "LAKEHOUSE_LOG=debug shows where; the lake is as the last complete run left it",
    2: "correct what is named, then run it again",
    3: "look at the source, then run it again; the lake is as the last complete run left it",
    4: "`make quality` shows the rules of the last complete run, which is untouched; correct the source",
    5: "look at disk space, memory and permissions; `make maintain` frees what it can",
    6: "wait for the other run, or stop it",
    143: "a person stopped it, or the machine went down: run it again",
}


def alert(settings: Settings, outcome: Outcome) -> None:
    """Sends what the webhook should know, if anything. Raises Fault, without the address, if the webhook refuses it."""
    if outcome.code in BY_HAND:
        return
    late: dict[str, str | None] = {}
    warnings: list[str] = []
    with suppress(Exception):  # if the lake cannot be read, the alert goes out without its facts
        named = tuple(outcome.domain.split(",")) if outcome.domain else ()
        domains = [] if outcome.is_of_settings else [*(known_domains(named) or in_use(settings))]
        warnings = [line for domain in domains for line in _new_warnings(settings, domain, outcome)]
        late = _late(settings, domains, outcome)
    if outcome.code or warnings:
        _send(settings, BODIES[settings.alert.format](_facts(settings, outcome, late, warnings)))


def _late(settings: Settings, domains: list[str], outcome: Outcome) -> dict[str, str | None]:
    """The domains in which the call did not build a layer that it should have, or else all; and the last success."""
    layers = [layer for layer in LAYERS if layer in outcome.targets] or [LAYERS[-1]]
    last = {domain: [run_log.last_run(settings.layer_path(layer), domain) for layer in layers] for domain in domains}
    late = [domain for domain, runs in last.items() if any(not run or run.finished < outcome.started for run in runs)]
    return {domain: _instant(run.finished) if (run := last[domain][-1]) else None for domain in late or domains}


def _new_warnings(settings: Settings, domain: str, outcome: Outcome) -> list[str]:
    """The rules of severity warn that exceed LAKEHOUSE_ALERT__MAX_WARNED in a run of this call, and did not in the
    previous run."""
    path = settings.silver_path
    numbers = [head.run for head in run_log.heads(path) if head.domain == domain][-2:]
    runs = [run for number in numbers for run in run_log.read_runs(path, run=number, domain=domain)]
    if not runs or runs[-1].finished < outcome.started:
        return []
    warns = [[rule for rule in run_log.read_rules(path, run) if rule.severity is Severity.WARN] for run in runs]
    over = [[rule for rule in rules if rule.share > settings.alert.max_warned] for rules in warns]
    known = {(rule.table, rule.rule) for rules in over[:-1] for rule in rules}
    return [
        f"silver.{rule.table}: {rule.failed:,} of {rule.tested:,} rows do not meet: {rule.rule}"
        for rule in over[-1]
        if (rule.table, rule.rule) not in known
    ]


def _facts(settings: Settings, outcome: Outcome, late: dict[str, str | None], warnings: list[str]) -> dict[str, Any]:
    """What the format `json` sends."""
    limit = f"more rows than LAKEHOUSE_ALERT__MAX_WARNED={settings.alert.max_warned:g} fail a rule"
    return {
        "status": "failed" if outcome.code else "warning",
        "targets": " ".join(outcome.targets),
        "domains": list(late),
        "host": socket.gethostname(),
        "code": outcome.code,
        "kind": outcome.kind if outcome.code else "quality",
        "message": visible(outcome.line) or outcome.kind if outcome.code else limit,
        "started": _instant(outcome.started),
        "time": _instant(datetime.now(UTC)),
        "last_success": late,
        "hint": HINTS.get(outcome.code, HINTS[1]),
        "warnings": [visible(line) for line in warnings],
    }


def _instant(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _lines(facts: dict[str, Any]) -> list[str]:
    """The lines that a person reads, the most important first."""
    ended = f"{facts['kind']}, exit code {facts['code']}" if facts["code"] else "done, with warnings"
    successes = (f"{domain}: last success {when or 'never'}" for domain, when in facts["last_success"].items())
    title = f"lakehouse on {facts['host']}: {facts['targets']}: {ended}"
    return [title, facts["message"], *facts["warnings"], *successes, f"at {facts['time']}; {facts['hint']}"]


def _as_slack(facts: dict[str, Any]) -> dict[str, Any]:
    """Slack gives &, < and > a meaning of its own: a name that contains them must not notify anybody."""
    text = "\n".join(_lines(facts))
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


def _as_teams(facts: dict[str, Any]) -> dict[str, Any]:
    """An Adaptive Card, as a workflow expects it; made of text runs, because a TextBlock would read Markdown."""
    title, *lines = _lines(facts)
    runs = [
        {"type": "TextRun", "text": title, "weight": "Bolder"},
        *({"type": "TextRun", "text": line} for line in lines),
    ]
    body = [{"type": "RichTextBlock", "inlines": [run]} for run in runs]
    schema = "http://adaptivecards.io/schemas/adaptive-card.json"
    card = {"$schema": schema, "type": "AdaptiveCard", "version": "1.2", "body": body}
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}


BODIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"json": dict, "slack": _as_slack, "teams": _as_teams}


class _Stay(urllib.request.HTTPRedirectHandler):
    """An alert goes to its address and is not redirected."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _send(settings: Settings, body: dict[str, Any]) -> None:
    """Posts an alert, a second time if that may help. Raises Fault that names the kind of trouble."""
    troubles = ["it took too long"]

    def post() -> None:
        for _ in range(2):
            troubles[0], passes = _post(settings, body)
            if not passes:
                return

    # No time-out covers a name server, or a server that sends a byte now and then.
    sender = threading.Thread(target=post, name="alert", daemon=True)
    sender.start()
    sender.join(ALERT_SECONDS)
    if troubles[0]:
        raise Fault(f"the alert was not sent to LAKEHOUSE_ALERT__WEBHOOK_URL: {troubles[0]}")


def _post(settings: Settings, body: dict[str, Any]) -> tuple[str, bool]:
    """The trouble, in words without the address, and whether it may pass; no words if it was sent."""
    assert settings.alert.webhook_url
    url, data = settings.alert.webhook_url.get_secret_value(), json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310, see Alert
        with urllib.request.build_opener(_Stay).open(request, timeout=WEBHOOK_SECONDS):
            return "", False
    except HTTPError as error:
        return f"it answered {error.code}", error.code == 429 or error.code >= 500
    except URLError as error:
        return f"it cannot be reached, {type(error.reason).__name__}", True
    except (OSError, HTTPException, ValueError) as error:
        return f"it cannot be reached, {type(error).__name__}", True
