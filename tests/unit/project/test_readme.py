"""The documents say what is so: settings, commands, exit codes."""

import re
import tomllib

from conf.settings import PROJECT
from pipelines.cli.words import COMMANDS
from pipelines.core import errors
from tests.support.documents import MAKE_TARGETS, README, REFERENCE, setting_rows, shell_lines

PAGES = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob(".github/**/*.yml")]
CONTRIBUTING = (PROJECT / "CONTRIBUTING.md").read_text("utf-8")


def test_every_make_command_that_a_document_names_exists() -> None:
    lines = shell_lines() + [line for page in PAGES for line in re.findall(r"`(make [^`]*)`", page.read_text("utf-8"))]
    named = [match[1] for line in lines if (match := re.match(r"make ((?:[a-z][a-z-]* ?)+)", line))]
    assert {word for words in named for word in words.split()} <= MAKE_TARGETS
    assert len(named) > 10


def test_every_target_is_in_make_and_in_the_reference() -> None:
    assert set(COMMANDS) <= MAKE_TARGETS
    listed = REFERENCE.split("## Commands")[1].split("## ")[0]
    named = {word for line in re.findall(r"`make ([a-z -]+?)(?: [A-Z]+=\S+)?`", listed) for word in line.split()}
    assert named == MAKE_TARGETS - {"help"}


def test_the_reference_has_each_setting_as_it_is_declared() -> None:
    listed = REFERENCE.split("## Settings")[1].split("## ")[0]
    assert re.findall(r"^\| `LAKEHOUSE.*$", listed, re.M) == setting_rows()


def test_the_readme_is_short_and_the_same_in_portuguese() -> None:
    portuguese = (PROJECT / "README.pt-BR.md").read_text("utf-8")
    assert max(len(README.splitlines()), len(portuguese.splitlines())) <= 150
    for pattern in (r"^#+ ", r"```(?:sh|cron|text)\n.*?```", r"\]\((?!README)[^)]*\)", r"`(?:make|SELECT) [^`]*`"):
        here, there = (re.findall(pattern, text, re.M | re.S) for text in (README, portuguese))
        assert len(here) > 2 and here == there, pattern


def test_every_exit_code_is_in_the_reference() -> None:
    codes = {
        fault.code for fault in vars(errors).values() if isinstance(fault, type) and issubclass(fault, errors.Fault)
    }
    assert codes == {1, 2, 3, 4, 5, 6}
    assert all(f"| {code} |" in REFERENCE for code in codes)


def test_every_file_that_a_document_names_or_links_exists() -> None:
    folders = "|".join(sorted({path.name for path in PROJECT.iterdir() if path.is_dir() and path.name[0] != "."}))
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S)
        links = {page.parent / link for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)}
        named = {
            PROJECT / name
            for name in re.findall(rf"(?<![\w/.*-])((?:{folders})/[\w/-]+\.(?:py|md|yml|json|sql))\b", text)
        }
        new = {"bronze/cartoes/agencia.py", "silver/cartoes/agencia.py", "bronze/agua/leituras.py"}
        missing = {path for path in links | named if not path.exists()} - {PROJECT / name for name in new}
        assert not missing, page.name


def test_contributing_lists_the_rooms_of_pipelines_by_layer_and_names_files_that_they_have() -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["name"] == "inside pipelines")
    rooms = re.findall(r"\w+", " ".join(layers))
    section = CONTRIBUTING.split("## The rooms of `pipelines/`")[1].split("## ")[0]
    listed, to_add = section.split("| to add |")
    assert re.findall(r"^\| `(\w+)` \|", listed, re.M) == rooms
    assert {path.name for path in (PROJECT / "pipelines").iterdir() if (path / "__init__.py").exists()} == set(rooms)
    inside = re.findall(rf"`((?:{'|'.join(rooms)})/[\w/]+\.py)`", listed + to_add)
    assert len(inside) > 8 and all((PROJECT / "pipelines" / name).exists() for name in inside)
