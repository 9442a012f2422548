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
    some = list(expressions())
    named = {name for text in some for name in re.findall(r"\blakehouse_\w+", text)}
    assert named == {*CALL, *LAKE}
    labels = {label for text in some for label in re.findall(r"(\w+)=~?\"", text)}
    assert labels == {"lake", "layer", "call", "severity"}


def test_each_rule_has_a_test_that_promtool_runs() -> None:
    rules = YAML(typ="safe", pure=True).load(MONITORING / "alerts.yml")
    names = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    tests = YAML(typ="safe", pure=True).load(MONITORING / "alerts_test.yml")
    tried = [one for test in tests["tests"] for one in test["alert_rule_test"]]
    assert {one["alertname"] for one in tried if one.get("exp_alerts")} == {*names}
    if not PROMTOOL:
        pytest.skip("promtool is not installed")
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        subprocess.run([PROMTOOL, *words], cwd=MONITORING, check=True, timeout=120)
