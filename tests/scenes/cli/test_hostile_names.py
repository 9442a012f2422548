"""Names that somebody else chose, of files, columns and labels, command no terminal and fake no line of a log."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.lake import run_log
from tests.support.condominio import PARENTS, SALES
from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.log import objects
from tests.support.process import connection_settings
from tests.support.source import KEYED, execute
from tests.support.webhook import Hook, listening

NAME = "\x1b[2J\nerror: unexpected: \u202eall\u2028is \x9blost"
SHOWN = r"\x1b[2J\nerror: unexpected: \u202eall\u2028is \x9blost"
TAKEN, TAKEN_SHOWN = "\u202elairotut\u200b", r"\u202elairotut\u200b"  # a name that a file may have
COMMANDS = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
LOOKING = ("status", "history", "quality", "plan", "doctor", "reconcile", "answers")


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening() as hook:
        yield hook


def output_of(cli: CliHere, env: dict[str, str], *words: str, code: int = 0) -> str:
    """What a call printed, none of whose lines commands a terminal or is one that a name made up."""
    result = cli(*words, env=env)
    output = result.stdout + result.stderr
    assert result.returncode == code and not COMMANDS.search(output), output
    assert not re.search("^error:", output, re.MULTILINE), output
    return output


def test_hostile_names_of_files_and_of_their_columns_are_shown_escaped(
    cli_here: CliHere, condominio: Lake, hook: Hook
) -> None:
    env = hook.env | {"LAKEHOUSE_CALL__DOMAIN": "condominio", "LAKEHOUSE_QUALITY__MAX_QUARANTINED": "1"}
    for at, (name, text) in enumerate(PARENTS.items()):
        condominio.drop(name, text, at)
    condominio.drop(f"transacoes{TAKEN}.csv", SALES + "1,1,2024-03-01,10.00\n", 10)
    condominio.drop(f"transacoes{NAME}.csv", "x", 10)
    landing = condominio.folder / "landing/condominio"
    Path(os.fsdecode(os.fsencode(landing) + b"/m\xe9dia\xff.csv")).write_text("x")
    first = output_of(cli_here, env, "bronze", "silver", "gold")
    assert r"no table takes m\xe9dia\xff.csv" in first and f"not taken is transacoes{SHOWN}.csv in" in first
    condominio.drop(f"transacoes{TAKEN}2.csv", f"{SALES.strip()},x{TAKEN}\n", 11)
    condominio.drop(f"transacoes{TAKEN}4.csv", f"{SALES.strip()},x\x1b[2J\n", 12)
    condominio.drop(f"transacoes{TAKEN}3.csv", SALES + "1,1,2024-03-01,10.00\n", 12)
    second = output_of(cli_here, env, "bronze", "silver", "gold")
    assert f"transacoes{TAKEN_SHOWN}3.csv has the content of transacoes{TAKEN_SHOWN}.csv" in second
    assert f"column x{TAKEN_SHOWN} is new" in second
    recorded = condominio.last("bronze").warnings
    assert len(recorded) == 5 and not any(COMMANDS.search(text) or "\n" in text for text in recorded)
    looked = {word: output_of(cli_here, env, word) for word in LOOKING}
    assert SHOWN in looked["status"]
    for line in objects(cli_here("status", "plan", "reconcile", env=env | {"LAKEHOUSE_LOG_FORMAT": "json"})):
        assert not COMMANDS.search(str(line["message"]))
    condominio.drop(f"transacoes{TAKEN}3.csv", SALES, 12)
    for form in ("json", "slack", "teams"):
        failed = output_of(cli_here, env | {"LAKEHOUSE_ALERT__FORMAT": form}, "bronze", code=3)
        assert f"{TAKEN_SHOWN}3.csv was taken by run 2" in failed
        assert TAKEN_SHOWN in str(hook.bodies[-1]).replace("\\\\", "\\") and not COMMANDS.search(str(hook.bodies[-1]))


def test_hostile_names_of_columns_and_labels_are_shown_escaped(cli_here: CliHere, lakehouse: Lake) -> None:
    name = NAME.replace("unexpected: ", "")
    column, shown = f"x{name}", "x" + SHOWN.replace("unexpected: ", "")
    env = connection_settings(lakehouse.address) | {"LAKEHOUSE_CALL__DOMAIN": "cartoes"}
    execute(lakehouse.address, *KEYED)
    output_of(cli_here, env, "bronze", "silver", "gold")
    execute(
        lakehouse.address,
        f"CREATE TYPE rotulo AS ENUM ('{name}'); ALTER TABLE conta ALTER tipo TYPE rotulo USING '{name}'::rotulo",
        f'ALTER TABLE cartao ADD "{column}" int DEFAULT 7',
    )
    assert f"column public.cartao.{shown} is new: integer" in output_of(cli_here, env, "plan")
    assert f"column public.cartao.{shown} is new: integer" in output_of(cli_here, env, "bronze", "silver", "gold")
    (run,) = run_log.read_runs(lakehouse.settings().bronze_path, run=2)
    assert shown in run.warnings[0]
    for word in LOOKING:
        output_of(cli_here, env, word)
    execute(lakehouse.address, 'ALTER TABLE cartao RENAME nom_impresso TO "nom_impresso\x1b\n"')
    assert r"is it nom_impresso\x1b\n now?" in output_of(cli_here, env, "bronze", code=3)
