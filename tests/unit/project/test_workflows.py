"""What runs on GitHub is pinned, bounded, and asks for no right that it does not need; the rest of it `make lint` looks at."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from conf.settings import PROJECT
from tests.support.documents import MAKE_TARGETS
from tools import bootstrap

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
ACTIONS = sorted((PROJECT / ".github/actions").glob("*/action.yml"))
READ = {"contents": "read"}


def parsed(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def jobs() -> dict[str, dict[str, Any]]:
    return {f"{path.stem}.{name}": job for path in WORKFLOWS for name, job in parsed(path)["jobs"].items()}


def steps() -> list[dict[str, Any]]:
    composite = [step for path in ACTIONS for step in parsed(path)["runs"]["steps"]]
    return composite + [step for job in jobs().values() for step in job.get("steps", ())]


def test_every_action_is_pinned_by_its_commit_and_names_its_version() -> None:
    lines = [
        line for path in (*WORKFLOWS, *ACTIONS) for line in path.read_text("utf-8").splitlines() if "uses:" in line
    ]
    foreign = [line for line in lines if "uses: ./" not in line]
    wrong = [line for line in foreign if not re.search(r" uses: [\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)]
    assert wrong == [] and len(foreign) > 5


def test_one_version_of_an_action_is_used_everywhere() -> None:
    used = {step["uses"] for step in steps() if "uses" in step}
    assert len({action.partition("@")[0] for action in used}) == len(used) > 5


def test_every_job_ends_in_time() -> None:
    assert [
        name for name, job in jobs().items() if "uses" not in job and not 1 <= job.get("timeout-minutes", 0) <= 60
    ] == []


def test_only_the_job_that_publishes_may_do_more_than_read() -> None:
    rights = {name: job["permissions"] for name, job in jobs().items()}
    assert rights.pop("publish.image") == READ | {"packages": "write", "id-token": "write", "attestations": "write"}
    assert [name for name, given in rights.items() if given not in ({}, READ)] == []
    assert all(parsed(path)["permissions"] == {} for path in WORKFLOWS)


def test_no_checkout_leaves_its_token_behind() -> None:
    checkouts = [step for step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts) and len(checkouts) > 2


def taken(check: Callable[[], object]) -> bool:
    try:
        check()
    except SystemExit:
        return False
    return True


def test_the_tests_run_on_each_python_that_set_up_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    pythons = []
    for minor in range(8, 20):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "version_info", (3, minor, 0))
            pythons += [f"3.{minor}"] * taken(bootstrap.check_python)
    assert jobs()["ci.tests"]["strategy"]["matrix"]["python"] == pythons == ["3.11", "3.12", "3.13"]


def test_the_tests_run_on_each_java_that_set_up_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java, javas = tmp_path / "bin/java", []
    java.parent.mkdir()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    for version in range(8, 30):
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}.0.1\"'\n")
        java.chmod(0o755)
        javas += [str(version)] * taken(bootstrap.check_java)
    assert jobs()["ci.tests"]["strategy"]["matrix"]["java"] == javas == ["17", "21"]


def test_one_job_of_the_matrix_runs_all_tests_on_spark() -> None:
    job = jobs()["ci.tests"]
    (step,) = (step for step in job["steps"] if step.get("run") == "make test")
    wanted = re.findall(r"matrix\.(\w+) == '([\d.]+)'", step["env"]["LAKEHOUSE_TEST_ENGINE"])
    assert len(wanted) == 2 and all(version in job["strategy"]["matrix"][name] for name, version in wanted)


def test_jobs_run_make_targets_and_programs_that_exist() -> None:
    runs = [step["run"] for step in steps() if "run" in step]
    targets = {line.split()[1] for run in runs for line in run.splitlines() if line.startswith("make ")}
    programs = {word for run in runs for word in run.split() if re.match(r"(tools|\.ci)/", word)}
    assert {"lint", "test", "audit"} <= targets <= MAKE_TARGETS
    assert programs and all((PROJECT / word).exists() for word in programs)
