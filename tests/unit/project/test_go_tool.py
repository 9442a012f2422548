"""A checker that is written in Go runs where it or Go is, and is skipped, with the reason, where neither is."""

import re
import subprocess
import sys
from pathlib import Path

from conf.settings import PROJECT
from tools.go_tool import PINS


def actionlint(path: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of actionlint where PATH has nothing but what is in a folder."""
    command = [sys.executable, str(PROJECT / "tools/go_tool.py"), "actionlint", "-color"]
    result = subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True)
    return result.returncode, result.stdout, result.stderr


def program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def test_without_the_checker_and_without_go_the_reason_is_one_line(tmp_path: Path) -> None:
    assert actionlint(tmp_path) == (69, "", "actionlint is skipped: neither actionlint nor go is on PATH\n")


def test_without_network_the_last_line_that_go_says_is_the_reason(tmp_path: Path) -> None:
    program(tmp_path / "go", "echo 'go: downloading' >&2; echo 'dial tcp: no such host' >&2; exit 1")
    assert actionlint(tmp_path) == (69, "", "actionlint is skipped: go cannot build it: dial tcp: no such host\n")


def test_the_checker_that_is_there_runs_and_its_finding_is_a_failure(tmp_path: Path) -> None:
    program(tmp_path / "actionlint", 'echo "found $1"; exit 1')
    program(tmp_path / "go", "exit 2")
    assert actionlint(tmp_path) == (1, "found -color\n", "")


def test_go_builds_the_pinned_checker_and_its_finding_is_a_failure(tmp_path: Path) -> None:
    program(tmp_path / "built", 'echo "found $1"; exit 1')
    program(
        tmp_path / "go", f'[ "$*" = "install {PINS["actionlint"]}" ] && /bin/cp {tmp_path}/built "$GOBIN/actionlint"'
    )
    assert actionlint(tmp_path) == (1, "found -color\n", "")


def test_every_checker_is_pinned_by_its_whole_version() -> None:
    assert [pin for pin in PINS.values() if not re.fullmatch(r"[\w./-]+@v\d+\.\d+\.\d+", pin)] == []


def test_lint_passes_over_a_checker_that_is_skipped_and_fails_by_its_finding() -> None:
    line = next(line for line in (PROJECT / "Makefile").read_text().splitlines() if "actionlint" in line)
    end = line.partition("actionlint ")[2].replace("$$", "$")
    assert [subprocess.run(["/bin/sh", "-c", f"(exit {code}) {end}"]).returncode for code in (0, 1, 69)] == [0, 1, 0]
