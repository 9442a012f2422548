"""The alert rules and the dashboard in deploy/monitoring are about metrics that the program writes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from ruamel.yaml import YAML

from conf.settings import PROJECT
from pipelines.notify.metrics import CALL, LAKE

MONITORING = PROJECT / "deploy/monitoring"
PROMTOOL = shutil.which("promtool")


def expressions() -> Iterator[str]:
    rules = YAML(typ="safe", pure=True).load(MONITORING / "alerts.yml")
    yield from (rule["expr"] for group in rules["groups"] for rule in group["rules"])
    dashboard: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


def test_rules_and_dashboard_name_the_metrics_and_labels_that_there_are() -> None:
    rules = list(expressions())
    named = {name for text in rules for name in re.findall(r"\blakehouse_\w+", text)}
    assert named == {*CALL, *LAKE}
    labels = {label for text in rules for label in re.findall(r"(\w+)=~?\"", text)}
    assert labels == {"lake", "layer", "call", "severity"}


def test_each_rule_has_a_test_that_promtool_runs() -> None:
    rules = YAML(typ="safe", pure=True).load(MONITORING / "alerts.yml")
    names = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    tests = YAML(typ="safe", pure=True).load(MONITORING / "alerts_test.yml")
    tried = [case for test in tests["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in tried if case.get("exp_alerts")} == {*names}
    if not PROMTOOL:
        pytest.skip("promtool is not installed")
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        subprocess.run([PROMTOOL, *words], cwd=MONITORING, check=True, timeout=120)
