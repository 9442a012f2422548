"""The command line: exit codes and messages."""

import os

from conf.settings import PROJECT, Postgres
from tests.support.here import CliHere
from tests.support.process import Cli, connection_settings
from tests.support.source import query


def test_wrong_settings_are_one_line_wherever_they_are_typed(cli: Cli) -> None:
    result = CliHere(PROJECT / "docs")("status", env={"HOME": str(cli.folder)})
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and result.stderr.startswith("settings: ")


def test_each_kind_of_failure_has_its_code_and_one_line(cli: Cli, database: Postgres) -> None:
    named = connection_settings(database)
    lines = {
        2: cli("bronze", env=named | {"LAKEHOUSE_ROOT": "s3://x/y"}),
        3: cli("bronze", env=named),
        4: cli("silver", env=named | {"LAKEHOUSE_ROOT": "elsewhere"}),
        5: cli("bronze", env=named | {"LAKEHOUSE_ROOT": "/dev/null/lake"}),
    }
    expected = {
        2: "object stores",
        3: "table public.associado is missing",
        4: "run `make bronze` first",
        5: "/dev/null/lake",
    }
    assert not (cli.folder / "elsewhere").exists()
    for code, result in lines.items():
        assert (result.returncode, result.stderr.count("\n"), result.stdout) == (code, 1, "")
        assert expected[code] in result.stderr and "Traceback" not in result.stderr


def test_nobody_else_may_write_to_what_a_call_makes_whatever_the_umask_is(cli: Cli) -> None:
    env = {"LAKEHOUSE_CALL__DOMAIN": "condominio", "LAKEHOUSE_SEED__MOVIMENTOS": "50"}
    before = os.umask(0)
    try:
        for words in (("seed",), ("bronze", "silver", "gold"), ("export",), ("maintain",)):
            assert cli(*words, env=env).returncode == 0
        assert os.umask(0) == 0, "it is again what it was"
    finally:
        os.umask(before)
    made = [*cli.folder.rglob("*")]
    names = {path.name for path in made}
    assert {"landing", "lake", "export", "_runs", "_files", ".lock", "_delta_log"} <= names
    assert [path for path in made if path.lstat().st_mode & 0o022] == []


def test_usage_mistakes_are_exit_two(cli: Cli, database: Postgres) -> None:
    named = connection_settings(database)
    assert cli("brnze").returncode == 2
    assert cli().returncode == 2
    assert cli("demo", "gold").returncode == 2
    demo = cli("demo", env=named)
    assert demo.returncode == 2 and database.address in demo.stderr
    typo = cli("export", "--set", "ROOT=x")
    assert typo.returncode == 2 and "--set ROOT: there is no such setting" in typo.stderr
    seeded = cli("seed", env=named)
    assert seeded.returncode == 2 and f"CONFIRM={database.database}" in seeded.stderr
    assert query(database, "SELECT count(*) FROM pg_class WHERE relname = 'movimento'") == [(0,)]
    confirmed = cli(
        "seed", env=named | {"LAKEHOUSE_CALL__CONFIRM": database.database, "LAKEHOUSE_SEED__MOVIMENTOS": "50"}
    )
    assert confirmed.returncode == 0 and query(database, "SELECT count(*) FROM movimento") == [(50,)]
    assert "did you mean LAKEHOUSE_ROOT" in cli("export", env=named | {"LAKEHOUSE_ROOTS": "x"}).stderr
