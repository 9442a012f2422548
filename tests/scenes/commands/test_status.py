"""`status`, `quality` and `reconcile` in child processes, as a person sees them in the morning."""

import ast
import re
from collections.abc import Callable, Iterator

import pytest
from pyspark.sql import SparkSession

from conf.contract import Column, Severity, Table
from pipelines.commands import status as commands_status
from pipelines.commands.reconcile import with_lake
from pipelines.core import catalogue
from pipelines.lake import run_log
from pipelines.lake.runs import RuleRun
from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.prepared import Prepared
from tests.support.process import Cli, connection_settings
from tests.support.source import execute


@pytest.fixture(scope="module")
def morning(prepared: Callable[[str], Prepared], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake after four nights; in the fourth, orphans came, and bronze has read once more."""
    with prepared("nights").copied(tmp_path_factory.mktemp("morning")) as lakehouse:
        execute(
            lakehouse.address,
            "INSERT INTO movimento SELECT 300 + i, 7, 'segredo', '2024-01-01', 999 FROM generate_series(1, 4) i",
            "ALTER TABLE conta ADD agencia int",
        )
        lakehouse.run()
        lakehouse.run("bronze")
        yield lakehouse


@pytest.fixture
def ask(morning: Lake):  # type: ignore[no-untyped-def]
    return lambda *words: CliHere(morning.folder, morning.spark)(*words, env=connection_settings(morning.address))


def lines(text: str) -> list[str]:
    return [re.sub(" +", " ", line).strip() for line in text.splitlines()]


def test_status_shows_the_last_run_of_each_layer_its_age_and_its_warnings(ask, morning: Lake) -> None:  # type: ignore[no-untyped-def]
    result = ask("status")
    assert (result.returncode, result.stderr) == (0, "")
    printed = lines(result.stdout)
    address = morning.address.address
    for layer, number, rows in (("bronze", 5, "35 0"), ("silver", 4, "31 4"), ("gold", 4, "16 0")):
        assert any(
            re.fullmatch(rf"{layer} cartoes {address} \S+ \S+ {number} \d+ min {rows}", line) for line in printed
        ), printed
    assert "silver was built from bronze/4, but bronze/5 is the last: `make silver`" in printed
    aside = "4 rows set aside in silver.movimento__quarantine: cartao:missing 4"
    assert f"warning: silver.movimento: {aside}" in printed
    assert "warning: silver.associado: 1 of 6 rows do not meet: idade BETWEEN 0 AND 130" in printed
    assert not any("agencia" in line for line in printed)  # that was bronze's run before
    csv = morning.folder / "export/movimento_flat.csv"
    before = csv.read_bytes()
    csv.write_bytes(before + b"x")
    assert f"{csv} is not what gold/4 wrote: `make export`" in lines(ask("status").stdout)
    csv.unlink()
    assert f"{csv} is gone: `make export`" in lines(ask("status").stdout)
    csv.write_bytes(before)


def test_quality_shows_every_rule_against_the_run_before_and_how_to_see_the_rows(ask, morning: Lake) -> None:  # type: ignore[no-untyped-def]
    result = ask("quality")
    assert (result.returncode, result.stderr) == (0, "")
    printed = lines(result.stdout)
    assert re.fullmatch(r"silver.cartoes, run 4 of \S+ \S+ UTC, changes since run 3", printed[0])
    assert "movimento cartao:missing quarantine 20 4 20.00% +4 301; 302; 303" in printed
    assert "associado idade BETWEEN 0 AND 130 warn 6 1 16.67% -5" in printed
    assert any(re.fullmatch(r"\d\d rules without a failure", line) for line in printed)
    assert not any("key:conflict" in line for line in printed)
    assert "segredo" not in result.stdout
    query = re.search(r'spark.sql\(r"""(.*)\n"""\).show', result.stdout, re.DOTALL)
    assert query is not None
    path = morning.settings().silver_path / "cartoes/movimento__quarantine"
    run = run_log.last_run(morning.settings().silver_path, "cartoes")
    assert run is not None
    quarantine = morning.spark.read.format("delta").option("versionAsOf", run.table("movimento__quarantine").version)
    quarantine.load(str(path)).createOrReplaceTempView("movimento__quarantine")
    rows = morning.spark.sql(query[1].replace("silver.movimento__quarantine", "movimento__quarantine")).collect()
    assert sorted(row["id_movimento"] for row in rows) == [301, 302, 303, 304]


def test_reconcile_ends_with_code_four_where_the_lake_is_damaged(  # type: ignore[no-untyped-def]
    ask, morning: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(with_lake, "compare_with_upstream", lambda *_: None)  # it takes Spark, and finds nothing here
    csv = morning.folder / "export/movimento_flat.csv"
    before = csv.read_bytes()
    whole = ask("reconcile")
    assert (whole.returncode, whole.stderr, lines(whole.stdout)[-1]) == (0, "", "everything agrees")
    csv.write_bytes(before.replace(b"-0.05", b"-0.06", 1))
    result = ask("reconcile")
    csv.write_bytes(before)
    assert result.returncode == 4
    assert (
        lines(result.stdout)[-1]
        == "difference: export.movimento_flat.csv 1 row changed in vlr_transacao_movimento, key 2"
    )
    assert result.stderr.startswith("quality: 1 difference, listed above; ") and result.stderr.count("\n") == 1


def test_status_quality_and_reconcile_say_what_to_do_without_a_run(cli: Cli) -> None:
    result = cli("status")
    assert (
        result.returncode == 0
        and "bronze has no complete run of cartoes in" in result.stdout
        and "`make gold`" in result.stdout
    )
    for word in ("quality", "reconcile"):
        result = cli(word)
        assert result.returncode == 4 and "has no complete run" in result.stderr and result.stderr.count("\n") == 1


def test_answers_say_when_no_table_answers_a_question(ask) -> None:  # type: ignore[no-untyped-def]
    result = ask("answers")
    assert result.returncode == 0 and result.stdout.startswith(
        "no table of cartoes answers a question; what gold exports"
    )
    assert ask("answers", "--domain", "varejo").returncode == 4, "which has no run"


def test_the_query_asks_for_the_keys_whatever_they_are(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that would end the text of Python or of SQL, and keys of several columns."""
    hostile = 'a\'); x"""\\ \n\x1b\u202eé\U0001f600'
    columns = (Column("nome", "string", "x", key=True), Column("id", "bigint", "x", key=True))
    for keys, shown in (((hostile, 1), f"{hostile}, 1"), ((hostile,), hostile), ((7,), "7")):
        own = columns[-1:] if keys == (7,) else columns[: len(keys)]
        table = Table("silver.teste.coisa", "Things. One row per thing.", own)
        monkeypatch.setattr(catalogue, "tables", lambda _, table=table: [table])
        odd = RuleRun(1, "teste", "coisa", "odd", Severity.WARN, 10, 9, (shown, "8"))
        query = commands_status.query([odd])
        assert query.replace("\n", "").isprintable()
        called = ast.parse(query.partition("\n")[2]).body[0].value.func.value  # type: ignore[attr-defined]
        sql = ast.literal_eval(called.args[0]).replace("silver.coisa", "coisa")
        rows = spark.createDataFrame([keys], ", ".join(f"{column.name} {column.type}" for column in own))
        rows.createOrReplaceTempView("coisa")
        assert [tuple(row) for row in spark.sql(sql).collect()] == [keys]
