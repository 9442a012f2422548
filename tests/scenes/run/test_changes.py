"""Silver, gold, history and CSV follow what changed; a person sees beforehand what will happen, and afterwards what did."""

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from conf.contract import Column, warn
from gold.cartoes import movimento_flat
from pipelines.commands.history import restore
from pipelines.commands.maintain import maintain
from pipelines.commands.reconcile.reconcile import reconcile
from pipelines.commands.shell import create_tables, last_runs
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.core.names import LAYERS
from pipelines.lake import delta, folders, run_log
from pipelines.run import lifecycle
from silver.cartoes import associado, movimento
from tests.support.lake import Lake, changed, last, versions
from tests.support.oracle import agree
from tests.support.process import Cli, connection_settings
from tests.support.source import execute, query


def test_a_run_writes_only_what_changed_and_nothing_if_nothing_did_or_a_join_is_broken(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, file = versions(keyed_lake), keyed_lake.folder / "export/movimento_flat.csv"
    stat = file.stat()
    keyed_lake.spark, spark = None, keyed_lake.spark  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.spark.session.session", lambda *_, **__: pytest.fail("Spark was started for nothing"))
        capsys.readouterr()
        keyed_lake.run()
    keyed_lake.spark = spark
    printed = capsys.readouterr().err.splitlines()
    assert [line for line in printed if "nothing changed" in line] == [f"{layer}: nothing changed" for layer in LAYERS]
    assert printed[-1] == f"{file}: unchanged, it already has these rows"
    assert versions(keyed_lake) == before and (file.stat().st_mtime_ns, file.stat().st_ino) == (
        stat.st_mtime_ns,
        stat.st_ino,
    )
    assert [last(keyed_lake, layer).run for layer in LAYERS] == [2, 2, 2]
    assert len(run_log.read_rules(keyed_lake.settings().silver_path, last(keyed_lake, "silver"))) > 10
    assert last(keyed_lake, "gold").table("movimento_flat").csv_sha256 == folders.sha256(file)

    # A file that is not the one that was written is written again, though nothing changed.
    file.write_bytes(b"x")
    keyed_lake.run("gold")
    agree(keyed_lake)
    assert changed(keyed_lake, "gold") == {}

    # A member's name reaches each movement that shows it, and nothing between is written.
    execute(
        keyed_lake.address,
        "UPDATE associado SET nome = 'Eva' WHERE id = 3",
        "DELETE FROM movimento WHERE id = 9",
        "UPDATE movimento SET des_transacao = 'y' WHERE id = 10",
    )
    keyed_lake.run("bronze", "silver")
    assert changed(keyed_lake, "bronze") == {
        "associado": "0 written, 1 updated, 0 deleted",
        "movimento": "0 written, 1 updated, 1 deleted",
    }
    assert changed(keyed_lake, "silver") == {
        "associado": "0 written, 1 updated, 0 deleted",
        "associado__history": "1 written, 1 updated, 0 deleted",
        "movimento": "0 written, 1 updated, 1 deleted",
    }
    a_broken_join_leaves_the_old_gold(keyed_lake, monkeypatch)
    keyed_lake.run("gold")
    assert changed(keyed_lake, "gold") == {"movimento_flat": "0 written, 11 updated, 1 deleted"}
    assert agree(keyed_lake) == 199
    assert merged(keyed_lake, "silver/cartoes/movimento") == ("MERGE", "0", "1", "1")
    assert merged(keyed_lake, "silver/cartoes/associado__history") == ("MERGE", "1", "1", "0")
    assert merged(keyed_lake, "gold/cartoes/movimento_flat") == ("MERGE", "0", "11", "1")

    with Report() as report:
        reconcile(keyed_lake.settings(), ("cartoes",), report, spark)
    assert "everything agrees" in capsys.readouterr().out


def merged(lakehouse: Lake, table: str) -> tuple[str, ...]:
    """The last operation that Delta's history of a table has, and the rows that it inserted, updated and deleted."""
    last_commit = DeltaTable(lakehouse.settings().root / table).history(1)[0]
    rows = (last_commit["operationMetrics"][f"numTargetRows{what}"] for what in ("Inserted", "Updated", "Deleted"))
    return (last_commit["operation"], *rows)


@pytest.mark.jvm
def test_in_the_shell_bronze_is_what_the_source_has(keyed_lake: Lake, spark: SparkSession) -> None:
    execute(
        keyed_lake.address, "DELETE FROM movimento WHERE id = 9; UPDATE movimento SET des_transacao = 'y' WHERE id = 10"
    )
    keyed_lake.run("bronze")
    create_tables(keyed_lake.settings(), last_runs(keyed_lake.settings()), spark)
    rows = spark.sql("SELECT count(*), count_if(des_transacao = 'y'), count_if(id = 9) FROM bronze.movimento").first()
    assert tuple(rows or ()) == (199, 1, 0)
    by_path = spark.read.format("delta").load(str(keyed_lake.settings().bronze_path / "cartoes/movimento"))
    assert by_path.collect() == spark.table("bronze.movimento").collect()


def a_broken_join_leaves_the_old_gold(lakehouse: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A join that loses a changed movement, multiplies one or changes its amount ends the run."""
    true, before, csv = movimento_flat.transform, versions(lakehouse), lakehouse.csv
    files = sorted(lakehouse.settings().gold_path.rglob("*.parquet"))
    columns = [column.name for column in movimento_flat.TABLE.columns]

    def losing(*frames: DataFrame) -> DataFrame:
        return true(*frames).where("_id_movimento <> 10")

    def doubling(*frames: DataFrame) -> DataFrame:
        return true(*frames).union(true(*frames).where("_id_movimento = 10"))

    def cheating(*frames: DataFrame) -> DataFrame:
        return true(*frames).selectExpr(
            *(
                name if name != "vlr_transacao_movimento" else f"CAST({name} - 1 AS decimal(10,2)) AS {name}"
                for name in columns
            )
        )

    for broken, message in ((losing, "a join lost"), (doubling, "a join lost"), (cheating, "the sum of")):
        entry = catalogue.Entry(movimento_flat.TABLE, broken)
        with monkeypatch.context() as patch, pytest.raises(QualityFault, match=message):
            patch.setattr(catalogue, "entries", lambda layer, entry=entry: (entry,))
            lakehouse.run("gold")
        assert lakehouse.csv == csv and versions(lakehouse) == before
        assert sorted(lakehouse.settings().gold_path.rglob("*.parquet")) == files


def names_of(rows: list[dict[str, Any]], key: int) -> list[tuple[Any, ...]]:
    """The versions of a member, first to last: name, from, to, current."""
    rows = sorted((row for row in rows if row["id_associado"] == key), key=lambda row: row["_valid_from"])
    return [(row["nome"], row["_valid_from"], row["_valid_to"], row["_current"]) for row in rows]


def test_a_row_that_goes_comes_back_and_goes_again_is_gone_in_layers_that_skipped_these_nights(
    keyed_lake: Lake,
) -> None:
    (row,) = query(keyed_lake.address, "SELECT movimento FROM movimento WHERE id = 9")
    comes, goes = f"INSERT INTO movimento SELECT ('{row[0]}'::movimento).*", "DELETE FROM movimento WHERE id = 9"
    for statement in (goes, comes, goes):
        execute(keyed_lake.address, statement)
        keyed_lake.run("bronze")
    keyed_lake.run("silver", "gold")
    assert changed(keyed_lake, "silver") == {"movimento": "0 written, 0 updated, 1 deleted"}
    assert agree(keyed_lake) == 199
    for statement in (comes, goes, comes):
        execute(keyed_lake.address, statement)
        keyed_lake.run("bronze", "silver")
    keyed_lake.run("gold")
    assert agree(keyed_lake) == 200


@pytest.mark.parametrize("damage", [Path.unlink, partial(os.truncate, length=100)])
def test_without_its_change_data_file_a_version_is_compared_with_the_last_one(
    keyed_lake: Lake, damage: Callable[[Path], None]
) -> None:
    execute(keyed_lake.address, "DELETE FROM movimento WHERE id = 9")
    keyed_lake.run("bronze")
    (file,) = (keyed_lake.settings().bronze_path / "cartoes/movimento" / delta.FEED).iterdir()
    damage(file)
    keyed_lake.run("silver", "gold")
    assert agree(keyed_lake) == 199


def test_the_history_has_every_version_from_when_to_when(keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(name: str, more: str = "") -> None:
        execute(keyed_lake.address, f"UPDATE associado SET nome = '{name}' WHERE id = 3", *filter(None, [more]))

    def history() -> list[dict[str, Any]]:
        return keyed_lake.table("silver", "associado__history")

    def shown(rows: list[dict[str, Any]], key: int = 3) -> list[str]:
        versions = names_of(rows, key)
        for (_, since, until, current), after in zip(versions, [*versions[1:], None], strict=True):
            assert current == (until is None) and (until is None or since < until)
            assert after is None or until is None or until <= after[1]
        return [f"{name}{' now' if current else ''}" for name, _, _, current in versions]

    rename("Bia", "INSERT INTO associado VALUES (99, 'New')")
    keyed_lake.run("bronze")
    rename("Cris", "DELETE FROM associado WHERE id = 99")
    keyed_lake.run("bronze")
    with Report() as report:
        maintain(keyed_lake.settings(HISTORY_DAYS="1"), report)  # what silver has not read yet stays
    rename("Duda")
    keyed_lake.run("bronze", "silver")
    rows = history()
    assert shown(rows) == ["Ana", "Bia", "Cris", "Duda now"] and shown(rows, 99) == ["New"]
    began = [run.started for run in run_log.read_runs(keyed_lake.settings().bronze_path) if run.kind == "run"]
    assert [since for _, since, *_ in names_of(rows, 3)] == [moment.replace(tzinfo=None) for moment in began]

    keyed_lake.run("silver", full="associado")  # a full build keeps it
    assert shown(history()) == ["Ana", "Bia", "Cris", "Duda now"]
    with Report() as report:
        restore(keyed_lake.settings(), "silver/1", report)
    rows = history()
    assert shown(rows) == ["Ana now"] and names_of(rows, 99) == []
    keyed_lake.run("silver", "gold")
    assert shown(history())[-1] == "Duda now" and agree(keyed_lake) == 200

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(days=1)

    monkeypatch.setattr(lifecycle, "datetime", Yesterday)
    rename("Eva")
    keyed_lake.run("bronze", "silver")
    assert shown(history())[-1] == "Eva now"
    monkeypatch.undo()
    rename("Eva")
    keyed_lake.run("bronze", "silver")
    assert shown(history())[-1] == "Eva now" and "associado__history" not in changed(keyed_lake, "silver")


def test_a_history_takes_over_columns_that_change_places_come_go_or_get_another_type(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(keyed_lake.address, "UPDATE associado SET nome = 'Bia', sobrenome = 'Reis' WHERE id = 3")
    keyed_lake.run("bronze", "silver")
    table, columns, entries = associado.TABLE, associado.TABLE.columns, catalogue.entries("silver")

    def transform(frame: DataFrame) -> DataFrame:
        return associado.transform(frame).selectExpr("*", "left(nome, 1) AS inicial", "id_associado * 2 AS dobro")

    patched = tuple(replace(entry, transform=transform) if entry.table is table else entry for entry in entries)
    true = catalogue.entries
    monkeypatch.setattr(catalogue, "entries", lambda layer: patched if layer == "silver" else true(layer))
    key, nome, sobrenome, idade, email = columns
    for now in (
        (key, sobrenome, nome, idade, email),
        (*columns, Column("inicial", "string", "Initial", nullable=True)),
        (key, nome, sobrenome, idade, Column("dobro", "bigint", "Twice", nullable=True)),
    ):
        object.__setattr__(table, "columns", now)
        try:
            keyed_lake.run("silver", full="associado")
            rows = keyed_lake.table("silver", "associado")
            names = {column.name for column in now}
            versions = keyed_lake.table("silver", "associado__history")
            current = [{name: row[name] for name in names} for row in versions if row["_current"]]
            assert sorted(current, key=lambda row: row["id_associado"]) == rows
            # What was known of the old versions stays under its name.
            assert ("Ana", "Lima") in {(row["nome"], row["sobrenome"]) for row in versions if row["id_associado"] == 3}
            keyed_lake.run("silver")
            assert changed(keyed_lake, "silver") == {}
        finally:
            object.__setattr__(table, "columns", columns)


def test_a_table_whose_rules_are_others_is_judged_as_a_whole(keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule may come from a file that does not belong to the domain, and so not to the fingerprint of its software."""
    more, true = (*movimento.TABLE.rules, warn("vlr_transacao <> 1.25")), catalogue.entries
    patched = tuple(
        replace(entry, table=replace(entry.table, rules=more)) if entry.table == movimento.TABLE else entry
        for entry in true("silver")
    )
    monkeypatch.setattr(catalogue, "entries", lambda layer: patched if layer == "silver" else true(layer))
    execute(keyed_lake.address, "UPDATE movimento SET vlr_transacao = 9 WHERE id = 1")
    keyed_lake.run("bronze", "silver")
    assert last(keyed_lake, "silver").table("movimento").how.startswith("full")
    rules = run_log.read_rules(keyed_lake.settings().silver_path, last(keyed_lake, "silver"))
    ((tested, failed),) = [(rule.tested, rule.failed) for rule in rules if rule.rule == "vlr_transacao <> 1.25"]
    assert (tested, failed) == (200, 199)


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_plan_says_what_the_next_run_will_do_and_writes_nothing(
    cli: Cli, keyed_lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(
        keyed_lake.address,
        "UPDATE associado SET nome = 'Eva' WHERE id IN (3, 4)",
        "DELETE FROM movimento WHERE id IN (7, 8, 9)",
        "INSERT INTO movimento VALUES (1000, 1, 'x', '2024-01-01', 1)",
        "ALTER TABLE conta ADD agencia int DEFAULT 7",
    )
    before = tree(keyed_lake.folder)
    result = cli("plan", env=connection_settings(keyed_lake.address))
    assert (result.returncode, result.stderr) == (0, "") and tree(keyed_lake.folder) == before
    printed = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert printed == [
        "layer table rows to read deleted how",
        "bronze associado 2 0 what changed",
        "bronze conta 20 0 full: its columns or their defaults changed",
        "bronze cartao 0 0 unchanged",
        "bronze movimento 1 3 what changed",
        "silver associado what changed in bronze",
        "silver conta what changed in bronze",
        "silver cartao what changed in bronze",
        "silver movimento what changed in bronze",
        "gold movimento_flat what changed in silver",
        "column public.conta.agencia is new: integer",
    ]
    asked = cli("plan", "--exit-code", env=connection_settings(keyed_lake.address))
    assert (asked.returncode, asked.stdout) == (10, result.stdout)
    result = cli(
        "plan",
        env=connection_settings(keyed_lake.address)
        | {"LAKEHOUSE_CALL__FULL": "1", "LAKEHOUSE_CALL__TABLE": "movimento,movimento_flat"},
    )
    assert result.stdout.count("full: asked for") == 3 and tree(keyed_lake.folder) == before
    result = cli("plan", env=connection_settings(keyed_lake.address) | {"LAKEHOUSE_ROOT": "another"})
    assert result.returncode == 0 and result.stdout.count("full: the first time") == 9
    assert not (keyed_lake.folder / "another").exists()


def test_a_plan_of_a_lake_that_is_as_its_source_says_that_nothing_is_to_do(cli: Cli, keyed_lake: Lake) -> None:
    result = cli("plan", "--exit-code", env=connection_settings(keyed_lake.address))
    rows = [line.split() for line in result.stdout.splitlines()]
    assert result.returncode == 0 and rows[-1] == [
        "nothing",
        "to",
        "do:",
        "every",
        "table",
        "is",
        "as",
        "its",
        "source",
    ]
    assert len(rows) == 11 and {row[-1] for row in rows[1:-1]} == {"unchanged"}
    execute(keyed_lake.address, "UPDATE conta SET tipo = 'outra' WHERE id = 1")
    keyed_lake.run("bronze")
    waiting = cli("plan", "--exit-code", env=connection_settings(keyed_lake.address))
    assert waiting.returncode == 10 and waiting.stdout.count("what changed in bronze") == 4
