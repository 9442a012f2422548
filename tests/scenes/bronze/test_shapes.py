"""Sources of every shape: odd names, many columns, columns that come, go and change between runs."""

import pytest

from pipelines.core.errors import SourceFault
from pipelines.lake import run_log, runs
from tests.support.lake import Lake
from tests.support.source import LOOSE, execute

NAMES = (
    "select", "com espaço", 'a"b', "d'oro", "a.b", "a`b", "ação", "x;y", "a\\b", "100%", "{a}", "a,b", "MAIÚSCULA", "\ttab",
    "linha\n2", "$1", "%s", ":x", "😀", "n" * 63, "=", "a(b)",
)  # fmt: skip


def last(lakehouse: Lake) -> runs.Run:
    run = run_log.last_run(lakehouse.settings().bronze_path, "cartoes")
    assert run is not None
    return run


def test_odd_names_arrive_as_they_are_and_go_through_every_layer(lakehouse: Lake) -> None:
    quoted = ", ".join('"' + name.replace('"', '""') + '" numeric(5,2)' for name in NAMES)
    execute(
        lakehouse.address,
        *LOOSE[1:],
        f"CREATE TABLE associado (id int, nome text, sobrenome text, idade int, email text, {quoted})",
        f"INSERT INTO associado VALUES (1, 'Ana', NULL, NULL, NULL{', 1.25' * len(NAMES)})",
    )
    lakehouse.run()
    (row,) = lakehouse.table("bronze", "associado")
    assert [name for name in row if str(row[name]) == "1.25"] == list(NAMES)
    assert lakehouse.table("silver", "associado")[0]["nome"] == "Ana"
    assert {
        column.name: column.total for column in last(lakehouse).table("associado").columns if column.total
    } == dict.fromkeys(NAMES, "1.25")


def test_two_hundred_columns_generated_and_identity_columns_arrive(lakehouse: Lake) -> None:
    many = ", ".join(f"x{number} int DEFAULT {number}" for number in range(200))
    execute(
        lakehouse.address,
        *LOOSE[:3],
        f"""CREATE TABLE movimento (id int GENERATED ALWAYS AS IDENTITY, vlr_transacao numeric(10,2), des_transacao text,
        data_movimento timestamp, id_cartao int, dobro numeric GENERATED ALWAYS AS (vlr_transacao * 2) STORED, {many})""",
        "INSERT INTO movimento (vlr_transacao) VALUES (1.50), (2.50)",
    )
    lakehouse.run("bronze")
    rows = lakehouse.table("bronze", "movimento")
    assert [(row["id"], row["dobro"], row["x0"], row["x199"]) for row in rows] == [
        (1, "3.00", 0, 199),
        (2, "5.00", 0, 199),
    ]


def test_a_table_without_columns_is_an_error_that_names_what_is_missing(lakehouse: Lake) -> None:
    execute(lakehouse.address, *LOOSE[1:], "CREATE TABLE associado ()")
    with pytest.raises(SourceFault) as caught:
        lakehouse.run("bronze")
    for name in ("id", "nome", "sobrenome", "idade", "email"):
        assert f"column public.associado.{name} is missing" in str(caught.value)


def test_a_renamed_column_is_named_with_what_it_may_be_now(lakehouse: Lake) -> None:
    execute(lakehouse.address, *LOOSE, "ALTER TABLE associado RENAME sobrenome TO sobre_nome")
    with pytest.raises(SourceFault, match="associado.sobrenome is missing; is it sobre_nome now?"):
        lakehouse.run("bronze")


DRIFT = (
    "ALTER TABLE associado ADD pontos numeric(6,3), DROP antigo, ALTER saldo TYPE numeric(12,2)",
    "INSERT INTO associado (id, pontos, saldo) VALUES (1, 1.250, 10000000.25)",
)
DRIFTED = (
    "column public.associado.pontos is new: decimal(6,3)",
    "column public.associado.antigo is gone",
    "column public.associado.saldo was decimal(8,2), is decimal(12,2)",
)


def test_columns_that_come_go_and_change_are_taken_and_reported(
    lakehouse: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(lakehouse.address, *LOOSE, "ALTER TABLE associado ADD antigo text, ADD saldo numeric(8,2)")
    lakehouse.run("bronze")
    assert last(lakehouse).warnings == ()
    execute(lakehouse.address, *DRIFT)
    lakehouse.run("bronze")
    assert last(lakehouse).warnings == DRIFTED
    assert all(f"warning: {text}" in capsys.readouterr().err for text in DRIFTED[:1])
    (row,) = lakehouse.table("bronze", "associado")
    assert (str(row["pontos"]), str(row["saldo"]), "antigo" in row) == ("1.250", "10000000.25", False)
    lakehouse.run("bronze")
    assert last(lakehouse).warnings == ()


def test_under_freeze_drift_ends_the_run_before_anything_is_written(lakehouse: Lake) -> None:
    execute(lakehouse.address, *LOOSE, "ALTER TABLE associado ADD antigo text, ADD saldo numeric(8,2)")
    settings = lakehouse.run("bronze", SCHEMA_DRIFT="freeze")  # what the first run finds is the schema
    lakehouse.run("bronze", SCHEMA_DRIFT="freeze")
    execute(lakehouse.address, *DRIFT)
    path = settings.bronze_path / "cartoes/associado"
    files = sorted(path.rglob("*"))
    with pytest.raises(SourceFault) as caught:
        lakehouse.run("bronze", SCHEMA_DRIFT="freeze")
    assert all(text in str(caught.value) for text in (*DRIFTED, "set LAKEHOUSE_SCHEMA_DRIFT=evolve to take it"))
    assert sorted(path.rglob("*")) == files
    lakehouse.run("bronze", SCHEMA_DRIFT="evolve")
    lakehouse.run("bronze", SCHEMA_DRIFT="freeze")
