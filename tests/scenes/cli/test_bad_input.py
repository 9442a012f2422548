"""Bad settings, sources and schemas on the command line: each has its exit code and one clear line."""

import pytest

from conf.settings import Postgres
from tests.support.process import Cli, connection_settings
from tests.support.source import LOOSE, execute

SETTINGS = {
    "LAKEHOUSE_QUALITY__MAX_QUARANTINED=5": "LAKEHOUSE_QUALITY__MAX_QUARANTINED must be less than or equal to 1",
    "LAKEHOUSE_QUALITY__MAX_QUARANTINED=five": "LAKEHOUSE_QUALITY__MAX_QUARANTINED must be a valid number",
    "LAKEHOUSE_QUALITY__MAX_QUARANTINED=-0.1": "LAKEHOUSE_QUALITY__MAX_QUARANTINED must be greater than or equal to 0",
    "LAKEHOUSE_SCHEMA_DRIFT=ignore": "LAKEHOUSE_SCHEMA_DRIFT must be 'evolve' or 'freeze'",
    "LAKEHOUSE_CARD_NUMBERS=hidden": "LAKEHOUSE_CARD_NUMBERS must be 'masked' or 'plain'",
    "LAKEHOUSE_POSTGRES__PORT=port": "LAKEHOUSE_POSTGRES__PORT must be a valid integer",
    "LAKEHOUSE_POSTGRES__SCHEMA=gone": "table gone.associado is missing",
    "LAKEHOUSE_POSTGRES__DATABASE=gone": 'database "gone" does not exist',
    "LAKEHOUSE_POSTGRES__USER=nobody_here": 'role "nobody_here" does not exist',
}
SCHEMAS = {
    "DROP TABLE movimento": "table public.movimento is missing",
    "ALTER TABLE movimento DROP vlr_transacao": "column public.movimento.vlr_transacao is missing",
    "ALTER TABLE movimento RENAME vlr_transacao TO valor_transacao": "is missing; is it valor_transacao now?",
    "ALTER TABLE movimento ALTER vlr_transacao TYPE float8": "is float8, which cannot become decimal(10,2) exactly",
    "ALTER TABLE movimento ALTER vlr_transacao TYPE text": "is text, which cannot become decimal(10,2) exactly",
    "ALTER TABLE movimento ALTER data_movimento TYPE timestamptz": "is timestamptz, which cannot become timestamp_ntz",
    "ALTER TABLE movimento ALTER id TYPE boolean USING true": "is bool, which cannot become bigint exactly",
    "ALTER TABLE movimento ADD _rescued text": "column public.movimento._rescued: bronze has a column of this name",
    'ALTER TABLE movimento ADD "ID" int': "column public.movimento.ID: bronze has a column whose name differs only in case",
}


def one_line(stderr: str) -> str:
    assert stderr.count("\n") == 1 and "Traceback" not in stderr, stderr
    return stderr


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_bad_setting_is_named_with_what_it_must_be(cli: Cli, database: Postgres, setting: str) -> None:
    name, value = setting.split("=")
    result = cli("bronze", env=connection_settings(database) | {name: value})
    assert result.returncode == (3 if "POSTGRES__" in name and not name.endswith("PORT") else 2)
    assert SETTINGS[setting] in one_line(result.stderr)


def test_a_bad_schema_is_named_with_its_column_and_nothing_is_written(cli: Cli, database: Postgres) -> None:
    for change, message in SCHEMAS.items():
        execute(database, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public", *LOOSE, change)
        result = cli("bronze", env=connection_settings(database))
        assert (result.returncode, message in one_line(result.stderr)) == (3, True), (change, result.stderr)
        assert not (cli.folder / "lake/bronze/cartoes").exists()


def test_the_command_line_names_every_problem_in_one_line_before_it_needs_java(cli: Cli) -> None:
    (cli.folder / ".env").write_text("LAKEHOUSE_POSTGRES__PORT=x\nLAKEHOUSE_POSTGRES__PASSWORD='a\"${b}c'\n")
    result = cli("bronze", "silver", "--set", "LAKEHOUSE_EXPORT_PATH=/", env={"PATH": "", "JAVA_HOME": ""})
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    for name in ("LAKEHOUSE_EXPORT_PATH must not be", "POSTGRES__PORT", "POSTGRES__HOST is missing"):
        assert name in result.stderr
    assert 'a"$' not in result.stderr


def test_a_line_of_the_env_file_that_cannot_be_read_is_named(cli: Cli) -> None:
    (cli.folder / ".env").write_text("# fine\nLAKEHOUSE_ROOT=x\nthis is not env\n")
    result = cli("bronze")
    assert (result.returncode, result.stderr) == (2, "settings: .env: line 3 cannot be read; write NAME=value\n")


def test_a_password_on_the_command_line_is_refused(cli: Cli) -> None:
    result = cli("bronze", "--set", "LAKEHOUSE_POSTGRES__PASSWORD=s3cret")
    assert result.returncode == 2 and "s3cret" not in result.stderr and "command line" in result.stderr
