"""The log as JSON: every line that the command line writes is one object, and none has a person in it."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta

from conf.settings import Postgres
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.seed.postgres import seed
from tests.support.lake import Lake
from tests.support.process import Cli, connection_settings
from tests.support.source import execute, query

LOOKING = ("status", "quality", "history", "plan", "export", "maintain", "reconcile")


def objects(done: "subprocess.CompletedProcess[str]") -> list[dict[str, object]]:
    """All lines, those of standard error first."""
    found = [json.loads(line) for line in (done.stderr + done.stdout).splitlines()]
    for one in found:
        assert datetime.now(UTC) - datetime.fromisoformat(one["time"]) < timedelta(minutes=10)
        assert one["level"] in ("info", "warning", "error") and one["message"] and "\n" not in one["message"]
    return found


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
    done = cli("bronze", "silver", "gold", env=env)
    assert done.returncode == 0, done.stderr
    found = objects(done)
    tables = [one for one in found if "table" in one]
    names = {"rows_in", "rows_out", "set_aside", "seconds", "how", "layer", "domain"}
    assert all(names <= one.keys() and one["domain"] == "cartoes" for one in tables)
    of_runs = {(one["run"], one["table"]): one for one in tables if "run" in one}
    assert len(of_runs) == 9 and len(tables) == 18, "as progress, and with the run when it is complete"
    moved = of_runs["silver/1", "movimento"]
    assert (moved["layer"], moved["rows_in"], moved["rows_out"], moved["set_aside"]) == ("silver", 50, 49, 1)
    assert str(moved["message"]).startswith("silver.movimento: 49 rows, 1 set aside, whole: the first time, ")
    warned = [one["message"] for one in found if one["level"] == "warning"]
    assert warned[0] == "LAKEHOUSE_ROTO is not a setting; did you mean LAKEHOUSE_ROOT?"
    assert "silver.movimento: 1 rows set aside in silver.movimento__quarantine: cartao:missing 1" in warned
    (end,) = (one for one in found if "code" in one)
    assert (end["level"], end["code"], end["kind"]) == ("info", 0, "done") and float(str(end["seconds"])) > 1
    said = done.stdout + done.stderr
    for word in LOOKING:
        looked = cli(word, env=env)
        assert looked.returncode == 0 and objects(looked), looked.stderr
        said += looked.stdout + looked.stderr
    row = '"row": {"layer": "gold", "domain": "cartoes", "source": "'
    assert row in said and '"message": "everything agrees"' in said
    people = query(database, "SELECT nome, sobrenome, email FROM associado")
    cards = query(database, "SELECT num_cartao::text, nom_impresso FROM cartao")
    personal = {str(value) for row in (*people, *cards) for value in row if value}
    assert len(personal) > 10 and not [one for one in personal if re.search(rf"\b{re.escape(one)}\b", said)]


def test_failures_are_objects_too_and_rows_are_shown_to_persons_only(cli: Cli) -> None:
    env = {"LAKEHOUSE_LOG_FORMAT": "json"}
    for words, more, code, kind in (
        (("silver",), {}, 4, "quality"),
        (("silver",), {"LAKEHOUSE_FULL_DAYS": "0"}, 2, "settings"),
        (("silver", "--set", "x"), {}, 2, "settings"),
        (("answers",), {}, 2, "usage"),
    ):
        done = cli(*words, env=env | more)
        (one,) = objects(done)
        assert (done.returncode, one["code"], one["kind"], one["level"]) == (code, code, kind, "error")
    (cli.folder / "lago/bronze/cartoes").mkdir(parents=True)
    asked = cli("reset", env=env | {"LAKEHOUSE_ROOT": "lago"}, stdin="no\n")
    assert "this deletes:" in asked.stdout.splitlines(), "a person is asked in words"
