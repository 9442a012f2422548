"""Set-up says in one line what a machine lacks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conf.settings import PROJECT
from tools import bootstrap


def setup(path: Path, java_home: str = "") -> "subprocess.CompletedProcess[str]":
    """Set-up where only `path` is looked through for Java."""
    environment = {"PATH": str(path), "HOME": str(path)} | ({"JAVA_HOME": java_home} if java_home else {})
    command = [sys.executable, str(PROJECT / "tools/bootstrap.py"), "run"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=path)


def test_a_machine_without_java_is_told_what_to_install(tmp_path: Path) -> None:
    result = setup(tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "Java 17 or 21 is needed, none was found; install one" in result.stderr


def test_a_wrong_java_is_named_with_its_version(tmp_path: Path) -> None:
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"25.0.1\" 2025-10-21' >&2\n")
    java.chmod(0o755)
    for result in (setup(java.parent), setup(Path(os.devnull).parent, java_home=str(tmp_path))):
        assert result.returncode == 2 and f"Java 17 or 21 is needed, {java} is 25; install one" in result.stderr


def test_an_old_python_and_one_without_venv_are_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit):
        bootstrap.check_python()
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit):
        bootstrap.check_python()
    first, second = capsys.readouterr().err.splitlines()
    assert "Python's venv is missing; install it" in first
    assert "Python 3.11, 3.12 or 3.13 is needed, this is 3.9; install one" in second


def test_a_download_that_fails_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "none.txt").write_text("no-such-package-anywhere==1.0 --hash=sha256:" + "0" * 64 + "\n")
    monkeypatch.setattr(bootstrap, "REQUIREMENTS", str(tmp_path))
    with pytest.raises(SystemExit):
        bootstrap.install("none", "--no-index")
    assert "check the network and the package index" in capsys.readouterr().err.splitlines()[-1]


def test_uv_installs_where_it_is_and_pip_if_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> "subprocess.CompletedProcess[bytes]":
        commands.append(command)
        return subprocess.CompletedProcess(command, int(command[0] == "/bin/uv" and len(commands) > 1), b"")

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", run)
    bootstrap.install("run", "--no-build-isolation")
    bootstrap.install("run")
    assert [command[0] for command in commands] == ["/bin/uv", "/bin/uv", bootstrap.PYTHON]
    assert all("--require-hashes" in command and "--quiet" in command for command in commands)
    assert "pip will try" in capsys.readouterr().err


def test_set_up_says_its_steps_and_its_size_before_it_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap, "VENV", str(tmp_path / "none"))
    for name in ("check_java", "make_venv", "install", "fetch_jars", "prepare_spark"):
        monkeypatch.setattr(bootstrap, name, lambda *_, **__: None)
    bootstrap.main("run")
    first, *steps = capsys.readouterr().err.splitlines()
    assert first == f"setup: 4 steps, some minutes, once; {bootstrap.SIZE}"
    assert steps[1] == "setup: [2/4] packages" and len(steps) == 4


def test_airflow_gets_an_environment_of_its_own_and_needs_no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(bootstrap, "make_venv", lambda venv: commands.append((venv,)))
    monkeypatch.setattr(bootstrap, "install", lambda name, venv: commands.append((name, venv)))
    bootstrap.main("airflow")
    own = str(PROJECT / ".venv-airflow")
    assert commands == [(own,), ("airflow", own)]


def test_a_jar_with_another_checksum_is_not_right(tmp_path: Path) -> None:
    for name, checksum in bootstrap.checksums().items():
        assert bootstrap.right(str(PROJECT / ".jars" / name), checksum)
        (tmp_path / name).write_bytes((PROJECT / ".jars" / name).read_bytes() + b"x")
        assert not bootstrap.right(str(tmp_path / name), checksum)
    assert len(bootstrap.checksums()) == 4


def test_spark_that_cannot_be_prepared_is_one_line_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "PYTHON", shutil.which("false"))
    bootstrap.prepare_spark()
    assert capsys.readouterr().err == "setup: Spark could not be prepared; it will start some seconds slower\n"


def test_make_sets_up_again_when_a_jar_or_the_archive_is_gone(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    needed = ["requirements/build.txt", "requirements/run.txt", "requirements/jars.sha256", "tools/bootstrap.py"]
    there = [f".jars/{number}.jar" for number in range(4)] + [".jars/spark-1-0.jsa"]
    for name in (*needed, *there, ".venv/run.stamp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def sets_up() -> bool:
        result = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
        return "bootstrap.py run" in result.stdout

    assert not sets_up()
    for name in there[3:]:
        (tmp_path / name).unlink()
        assert sets_up()
        (tmp_path / name).touch()
    assert not sets_up()
