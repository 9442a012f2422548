"""The log as JSON: every line is one object, failures too, and none has a person in it."""

import re

from conf.settings import Postgres
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.seed.postgres import seed
from tests.support.lake import Lake
from tests.support.log import objects
from tests.support.process import Cli, connection_settings
from tests.support.source import execute, query

LOOKING = ("status", "quality", "history", "plan", "export", "maintain", "reconcile")


def test_each_line_of_a_run_is_an_object_without_a_person(cli: Cli, database: Postgres) -> None:
    with Report(quiet=True) as report:
        fake = Lake(cli.folder, database, None).settings(SEED__MOVIMENTOS="50")  # type: ignore[arg-type]
        seed(fake, database, catalogue.tables_of("bronze", "cartoes"), False, report)
    execute(
        database,
        "ALTER TABLE movimento DROP CONSTRAINT movimento_id_cartao_fkey",
        "UPDATE movimento SET id_cartao = 999 WHERE id = (SELECT min(id) FROM movimento)",
    )
    env = connection_settings(database) | {"LAKEHOUSE_LOG_FORMAT": "json", "LAKEHOUSE_ROTO": "x"}
    result = cli("bronze", "silver", "gold", env=env)
    assert result.returncode == 0, result.stderr
    lines = objects(result)
    tables = [line for line in lines if "table" in line]
    names = {"rows_in", "rows_out", "set_aside", "seconds", "how", "layer", "domain"}
    assert all(names <= table.keys() and table["domain"] == "cartoes" for table in tables)
    of_runs = {(table["run"], table["table"]): table for table in tables if "run" in table}
    assert len(of_runs) == 9 and len(tables) == 18, "as progress, and with the run when it is complete"
    moved = of_runs["silver/1", "movimento"]
    assert (moved["layer"], moved["rows_in"], moved["rows_out"], moved["set_aside"]) == ("silver", 50, 49, 1)
    assert str(moved["message"]).startswith("silver.movimento: 49 rows, 1 set aside, full: the first time, ")
    warned = [line["message"] for line in lines if line["level"] == "warning"]
    assert warned[0] == "LAKEHOUSE_ROTO is not a setting; did you mean LAKEHOUSE_ROOT?"
    assert "silver.movimento: 1 rows set aside in silver.movimento__quarantine: cartao:missing 1" in warned
    (end,) = (line for line in lines if "code" in line)
    assert (end["level"], end["code"], end["kind"]) == ("info", 0, "done") and float(str(end["seconds"])) > 0.1
    output = result.stdout + result.stderr
    for word in LOOKING:
        looked = cli(word, env=env)
        assert looked.returncode == 0 and objects(looked), looked.stderr
        output += looked.stdout + looked.stderr
    row = '"row": {"layer": "gold", "domain": "cartoes", "source": "'
    assert row in output and '"message": "everything agrees"' in output
    people = query(database, "SELECT nome, sobrenome, email FROM associado")
    cards = query(database, "SELECT num_cartao::text, nom_impresso FROM cartao")
    personal = {str(value) for row in (*people, *cards) for value in row if value}
    assert len(personal) > 10 and not [text for text in personal if re.search(rf"\b{re.escape(text)}\b", output)]


def test_failures_are_objects_too_and_rows_are_shown_to_persons_only(cli: Cli) -> None:
    env = {"LAKEHOUSE_LOG_FORMAT": "json"}
    for words, more, code, kind in (
        (("silver",), {}, 4, "quality"),
        (("silver",), {"LAKEHOUSE_FULL_DAYS": "0"}, 2, "settings"),
        (("silver", "--set", "x"), {}, 2, "settings"),
        (("answers",), {}, 2, "usage"),
    ):
        result = cli(*words, env=env | more)
        (line,) = objects(result)
        assert (result.returncode, line["code"], line["kind"], line["level"]) == (code, code, kind, "error")
    (cli.folder / "lago/bronze/cartoes").mkdir(parents=True)
    asked = cli("reset", env=env | {"LAKEHOUSE_ROOT": "lago"}, stdin="no\n")
    assert "this deletes:" in asked.stdout.splitlines(), "a person is asked in words"
