"""The documents say what is so: settings, commands, exit codes."""

import re

from conf.settings import NAMES, PROJECT
from pipelines.cli.main import TARGETS
from pipelines.core import errors
from tests.support.documents import MAKE_TARGETS, README, shell_lines


def test_every_make_command_that_a_document_names_exists() -> None:
    contributing = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")
    lines = re.findall(r"`(make [^`]*)`", README + contributing) + shell_lines()
    named = [match[1] for line in lines if (match := re.match(r"make ((?:[a-z-]+ ?)+)", line))]
    assert {word for words in named for word in words.split()} <= MAKE_TARGETS
    assert len(named) > 10


def test_every_target_is_in_make_and_in_the_readme() -> None:
    assert set(TARGETS) <= MAKE_TARGETS
    listed = README.split("## Commands")[1].split("## ")[0]
    named = {word for line in re.findall(r"`make ([a-z -]+?)(?: [A-Z]+=\S+)?`", listed) for word in line.split()}
    assert named == MAKE_TARGETS - {"help"}


def test_every_setting_is_in_the_readme() -> None:
    short = {name for name in NAMES if name in README or f"`__{name.rsplit('__', 1)[-1]}`" in README}
    assert short == set(NAMES)


def test_every_exit_code_is_in_the_readme() -> None:
    codes = {
        fault.code for fault in vars(errors).values() if isinstance(fault, type) and issubclass(fault, errors.Fault)
    }
    assert codes == {1, 2, 3, 4, 5, 6}
    assert all(f"| {code} |" in README for code in codes)
