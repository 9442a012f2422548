"""What is typed after make: variables become options, and what is not understood is refused before anything is done."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from conf.settings import PROJECT
from tests.support.documents import MAKE_TARGETS


def run(*words: str, folder: Path = PROJECT, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A make of its own, which knows nothing of the one that runs the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["make", *words], cwd=folder, env=kept | environment, capture_output=True, text=True, timeout=60
    )


def make(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What make would run."""
    return run("-n", *words, folder=PROJECT, **environment)


def called(*words: str, **environment: str) -> list[str]:
    """The words of the command lines that make would call."""
    return [
        line.split(" -m pipelines ")[1] for line in make(*words, **environment).stdout.splitlines() if "-m pipe" in line
    ]


def test_typed_variables_become_options_of_the_targets_that_take_them() -> None:
    (words,) = called("silver", "bronze", "FULL=1", "TABLES=conta", "DOMAIN=varejo,cartoes")
    assert words.startswith("silver bronze ")
    assert sorted(words.split()) == sorted(
        ["silver", "bronze", "--full", "--table", "'conta'", "--domain", "'varejo,cartoes'"]
    )
    assert called("seed", "bronze", "CONFIRM=coop") == ["seed --confirm 'coop'", "bronze"]
    assert called("export", "FORMAT=it's; x") == [r"export --format 'it'\''s; x'"]
    assert called("stream", "ONCE=1") == ["stream --once"] and called("bronze", "FULL=0") == ["bronze"]
    assert called("restore", "RUN=gold/12") == ["restore --run 'gold/12'"]
    assert called("export", "FORMAT=it's; x") == [r"export --format 'it'\''s; x'"]


def test_exported_variables_change_nothing() -> None:
    exported = dict.fromkeys(("DOMAIN", "TABLES", "FULL", "RUN", "ONCE", "FORMAT", "CONFIRM", "TABLE"), "example.com")
    for target in ("status", "bronze", "export", "restore", "stream", "seed"):
        assert called(target, **exported) == [target]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "bronze TABLE=movimento FULL=1",
            "TABLE is not a variable of this Makefile; did you mean TABLES?; nothing was done",
        ),
        ("export domain=varejo", "domain is not a variable of this Makefile; did you mean DOMAIN?; nothing was done"),
        ("status DOMAIN=varejo", "make status takes no DOMAIN; nothing was done"),
        ("bronze silver RUN=gold/1", "make bronze silver takes no RUN; nothing was done"),
    ],
)
def test_a_variable_that_is_not_understood_ends_the_call(words: str, message: str) -> None:
    result = make(*words.split())
    assert result.returncode == 2 and message in result.stderr and result.stdout == ""


def test_a_setting_and_the_tools_own_variables_may_be_typed() -> None:
    for words in ("demo LAKEHOUSE_SEED__MOVIMENTOS=300", "setup PYTHON=python3", "up PROFILE=demo", "bench SIZES=10"):
        assert make(*words.split()).returncode == 0, words


HOSTILE = (
    "$(shell touch made)",
    "$(touch made)",
    "${shell touch made}",
    "`touch made`",
    "x; touch made",
    "'; touch made; '",
    '"; touch made; "',
    "x' || touch made #",
    "\x1b[2J\\ $$x",
)
OPTIONS = {
    "DOMAIN": "bronze",
    "TABLES": "export",
    "FULL": "plan",
    "REPLACE": "bronze",
    "RUN": "restore",
    "ONCE": "stream",
    "FORMAT": "export",
    "CONFIRM": "seed",
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder in which everything is set up, and whose command line prints its words, each ended by a zero."""
    for name in ("Makefile", "tools/nearest.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    (tmp_path / "echo").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    (tmp_path / "echo").chmod(0o755)
    needed = [f"requirements/{name}" for name in ("build.txt", "run.txt", "bench.txt", "jars.sha256")]
    jars = [".jars/x.jsa", *(f".jars/{number}.jar" for number in range(4))]
    for name in (*needed, *jars, "tools/bootstrap.py", ".venv/run.stamp", ".venv/bench.stamp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv/bin").mkdir()
    (tmp_path / ".venv/bin/python").symlink_to(tmp_path / "echo")
    return tmp_path


@pytest.mark.parametrize("value", HOSTILE)
def test_what_is_typed_is_data_for_make_and_its_shell(value: str, copy: Path) -> None:
    for name, target in OPTIONS.items():
        words = run(target, f"{name}={value}", folder=copy).stdout.removesuffix("\0").split("\0")
        option = name.lower().replace("tables", "table")
        switch = name in ("FULL", "ONCE")
        assert words[3:] == ([f"--{option}={value}"] if switch else [f"--{option}", value]), words
    assert value in run("bench", f"SIZES={value}", folder=copy).stdout.split("\0")
    for words in (["up", "COMPOSE=./echo", f"PROFILE={value}"], ["status", f"LAKEHOUSE_ROOT={value}"], [value]):
        run(*words, folder=copy)
    assert not list(copy.rglob("*made*"))


def test_a_line_break_in_what_is_typed_is_refused(copy: Path) -> None:
    for name, target in OPTIONS.items():
        result = run(target, f"{name}=x\ntouch made\n", folder=copy)
        assert (
            result.returncode == 2 and f"{name}=x\\ntouch made\\n has a line break; nothing was done" in result.stderr
        )
    assert result.stdout == "" and not (copy / "made").exists()


def test_tab_in_bash_is_offered_the_targets_and_no_folder() -> None:
    asked = run("-npq", "__BASH_MAKE_COMPLETION__=1", ".DEFAULT")
    assert set(re.findall(r"^([a-z-]+):", asked.stdout, re.M)) >= MAKE_TARGETS and asked.stderr == ""
    assert not re.search(r"^(docs|tests|FORCE):", asked.stdout, re.M)


@pytest.mark.parametrize("name", ["docs", "conf", "tests", "pipelines", "brnze"])
def test_a_folder_or_a_misspelt_target_is_not_nothing_to_be_done(name: str) -> None:
    result = run(name)
    assert name not in MAKE_TARGETS and result.returncode == 2 and "make help lists" in result.stderr
    assert name != "brnze" or "did you mean bronze?" in result.stderr


def test_help_names_each_target_on_a_screen_of_24_lines() -> None:
    result = run("help")
    lines = result.stdout.splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    assert MAKE_TARGETS - {"help"} <= set(re.findall(r"[a-z-]+", result.stdout))
