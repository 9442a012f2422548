"""`status`, `quality` and `reconcile` in child processes, as a person sees them in the morning."""

import re
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.lake import run_log
from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.process import Cli, connection_settings
from tests.support.source import DROPS, KEYED, execute, fresh_database


@pytest.fixture(scope="module")
def morning(server: Postgres, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake after two nights; in the second, orphans came, and bronze has read a third time."""
    with fresh_database(server) as address:
        lakehouse = Lake(tmp_path_factory.mktemp("morning"), address, spark)
        execute(address, *KEYED, *DROPS, "UPDATE associado SET idade = 140 WHERE id = 3")
        lakehouse.run()
        execute(
            address,
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
    for layer, number, rows in (("bronze", 3, "264 0"), ("silver", 2, "260 4"), ("gold", 2, "200 0")):
        assert any(
            re.fullmatch(rf"{layer} cartoes {address} \S+ \S+ {number} \d+ min {rows}", line) for line in printed
        ), printed
    assert "silver was built from bronze/2, but bronze/3 is the last: `make silver`" in printed
    aside = "4 rows set aside in silver.movimento__quarantine: cartao:missing 4"
    assert f"warning: silver.movimento: {aside}" in printed
    assert "warning: silver.associado: 1 of 20 rows do not meet: idade BETWEEN 0 AND 130" in printed
    assert not any("agencia" in line for line in printed)  # that was bronze's run before
    csv = morning.folder / "export/movimento_flat.csv"
    before = csv.read_bytes()
    csv.write_bytes(before + b"x")
    assert f"{csv} is not what gold/2 wrote: `make export`" in lines(ask("status").stdout)
    csv.unlink()
    assert f"{csv} is gone: `make export`" in lines(ask("status").stdout)
    csv.write_bytes(before)


def test_quality_shows_every_rule_against_the_run_before_and_how_to_see_the_rows(ask, morning: Lake) -> None:  # type: ignore[no-untyped-def]
    result = ask("quality")
    assert (result.returncode, result.stderr) == (0, "")
    printed = lines(result.stdout)
    assert re.fullmatch(r"silver.cartoes, run 2 of \S+ \S+ UTC, changes since run 1", printed[0])
    assert "movimento cartao:missing quarantine 204 4 1.96% +4 301; 302; 303" in printed
    assert "associado idade BETWEEN 0 AND 130 warn 20 1 5.00% 3" in printed
    assert "movimento key:conflict quarantine 204 0" in printed
    assert "segredo" not in result.stdout
    query = re.search(r'spark.sql\("(.*)"\).show', printed[-1])
    assert query is not None
    path = morning.settings().silver_path / "cartoes/movimento__quarantine"
    run = run_log.last_run(morning.settings().silver_path, "cartoes")
    assert run is not None
    view = f"delta.`{path}` VERSION AS OF {run.table('movimento__quarantine').version}"
    rows = morning.spark.sql(query[1].replace("silver.movimento__quarantine", view)).collect()
    assert sorted(row["id_movimento"] for row in rows) == [301, 302, 303, 304]


def test_reconcile_ends_with_code_four_where_the_lake_is_damaged(ask, morning: Lake) -> None:  # type: ignore[no-untyped-def]
    csv = morning.folder / "export/movimento_flat.csv"
    before = csv.read_bytes()
    whole = ask("reconcile")
    assert (whole.returncode, whole.stderr, lines(whole.stdout)[-1]) == (0, "", "everything agrees")
    csv.write_bytes(before.replace(b"1.25", b"1.26", 1))
    result = ask("reconcile")
    csv.write_bytes(before)
    assert result.returncode == 4
    assert (
        lines(result.stdout)[-1]
        == "difference: export.movimento_flat.csv 1 row changed in vlr_transacao_movimento, key 1"
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
