"""Silver on a real source: what ends a run, what the source's guarantees save, what is recorded."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from conf.contract import fail
from pipelines.bronze import readers as bronze_readers
from pipelines.core import catalogue, names
from pipelines.core.errors import QualityFault, StorageFault
from pipelines.export import csv as export_csv
from pipelines.lake import run_log, versions
from pipelines.lake.runs import RuleRun
from pipelines.lake.versions import table_version
from pipelines.silver import checks, judging
from pipelines.silver import job as silver_job
from pipelines.spark.frames import read
from silver.cartoes import movimento
from tests.support.lake import ALL, Lake
from tests.support.oracle import agree
from tests.support.source import DROPS, execute


def last_rules(lakehouse: Lake) -> dict[tuple[str, str], RuleRun]:
    path = lakehouse.settings().silver_path
    run = run_log.last_run(path, "cartoes")
    assert run is not None
    return {(rule.table, rule.rule): rule for rule in run_log.read_rules(path, run)}


def heads(lakehouse: Lake) -> dict[str, int]:
    paths = [lakehouse.settings().layer_path(layer) / "cartoes" for layer in ("silver", "gold")]
    return {str(table): DeltaTable(table).version() for path in paths for table in path.iterdir()}


def test_more_set_aside_than_five_per_cent_or_another_limit_ends_the_run_before_anything_is_replaced(
    keyed_lake: Lake,
) -> None:
    settings = keyed_lake.settings(QUALITY__MAX_QUARANTINED="")
    assert settings.quality.max_quarantined == 0.05
    before, versions = keyed_lake.csv, heads(keyed_lake)
    execute(keyed_lake.address, *DROPS, "UPDATE movimento SET id_cartao = 999 WHERE id <= 11")
    keyed_lake.run("bronze")
    with pytest.raises(QualityFault) as caught:
        keyed_lake.run("silver", QUALITY__MAX_QUARANTINED="")
    message = str(caught.value)
    assert message.startswith("silver.movimento: 11 of 200 rows (5.5%) would be set aside, more than LAKEHOUSE_QUALITY")
    assert "cartao:missing 11 (key 1; 2; 3)" in message and "stay as they were" in message
    assert heads(keyed_lake) == versions and keyed_lake.csv == before
    assert len(list(settings.silver_path.rglob("movimento/*.parquet"))) == 1
    keyed_lake.run("silver", QUALITY__MAX_QUARANTINED="0.055")
    assert len(keyed_lake.table("silver", "movimento__quarantine")) == 11


def test_a_rule_of_severity_fail_ends_the_run_with_its_name_number_and_keys(keyed_lake: Lake) -> None:
    versions = heads(keyed_lake)
    object.__setattr__(movimento.TABLE, "rules", (fail("vlr_transacao < 5", "amounts are small"),))
    try:
        execute(keyed_lake.address, "UPDATE movimento SET vlr_transacao = 5 WHERE id IN (7, 9)")
        with pytest.raises(QualityFault, match=r"silver.movimento: amounts are small 2 \(key 7; 9\); silver, gold and"):
            keyed_lake.run()
        assert heads(keyed_lake) == versions
        execute(keyed_lake.address, "UPDATE movimento SET vlr_transacao = 4 WHERE id IN (7, 9)")
        keyed_lake.run("bronze", "silver")
    finally:
        object.__setattr__(movimento.TABLE, "rules", ())
    assert last_rules(keyed_lake)["movimento", "amounts are small"].tested == 200


def test_every_rule_of_a_run_is_recorded_and_what_a_failed_run_left_is_not(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        keyed_lake.address,
        *DROPS,
        "INSERT INTO movimento VALUES (500, 1, 'x', '2024-01-01', 77), (501, 1, 'x', 'infinity', 1)",
        "INSERT INTO movimento SELECT * FROM movimento WHERE id = 1",
        "UPDATE associado SET idade = 140 WHERE id IN (3, 4, 5, 6)",
    )
    real = run_log.append_rows

    def full(path, *arguments):  # type: ignore[no-untyped-def]
        if path.name == "_runs" and path.parent.name == "silver":
            raise OSError(28, "No space left on device")
        real(path, *arguments)

    monkeypatch.setattr(run_log, "append_rows", full)
    with pytest.raises(OSError, match="No space"):
        keyed_lake.run("bronze", "silver")
    monkeypatch.undo()
    keyed_lake.run("silver")
    rules = last_rules(keyed_lake)
    keyed_by_failure = {name: (rule.tested, rule.failed, rule.keys) for name, rule in rules.items() if rule.failed}
    assert keyed_by_failure == {
        ("movimento", "cartao:missing"): (202, 1, ("500",)),
        ("movimento", "unreadable:data_movimento"): (202, 1, ("501",)),
        ("associado", "idade BETWEEN 0 AND 130"): (20, 4, ("3", "4", "5")),
    }
    assert len([name for name in rules if name == ("movimento", "key:conflict")]) == 1
    path = keyed_lake.settings().silver_path
    run = run_log.last_run(path, "cartoes")
    assert run is not None and len(run_log.read_rules(path, run)) == len(rules)


FEW_OR_MANY_PARENTS = (1_000_000, 10)


@pytest.mark.jvm
def test_if_the_source_guarantees_key_and_reference_the_big_table_is_not_shuffled(
    keyed_lake: Lake, any_spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(keyed_lake.address, "UPDATE cartao SET id_conta = NULL WHERE id = 20")
    for guaranteed in (True, False):
        monkeypatch.setattr(judging, "BROADCAST_ROWS", 10)
        settings = replace(keyed_lake, spark=any_spark).run("bronze", "silver", full="movimento")
        assert len(keyed_lake.table("silver", "movimento__quarantine")) == 10
        for few, looked in product(FEW_OR_MANY_PARENTS, (True, False)):
            monkeypatch.setattr(judging, "BROADCAST_ROWS", few)
            plan = plan_of(keyed_lake, settings, looked)
            assert ("SortMergeJoin" in plan, "Exchange hashpartitioning(id_cartao" in plan) == (not guaranteed,) * 2
        execute(keyed_lake.address, *(DROPS if guaranteed else ()))


def plan_of(lakehouse: Lake, settings, looked: bool) -> str:  # type: ignore[no-untyped-def]
    """How movimento would be judged where no table is small enough to be sent around by itself."""
    upstream = run_log.last_run(settings.bronze_path, "cartoes")
    run = run_log.last_run(settings.silver_path, "cartoes")
    assert upstream is not None and run is not None
    spark, entry = lakehouse.spark, next(e for e in catalogue.entries("silver") if e.table is movimento.TABLE)
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", -1)
    try:
        facts = silver_job.bronze_facts(settings, upstream, entry.table) if looked else None
        bronze = [read(spark, table_version(settings.bronze_path, upstream, source)) for source in entry.table.inputs]
        checked = judging.check_rows(upstream, entry, bronze, judging.stored_tables(settings, run), facts)
        return str(checked.rows._jdf.queryExecution().executedPlan().toString())
    finally:
        spark.conf.unset("spark.sql.autoBroadcastJoinThreshold")


def test_a_reference_that_is_declared_but_broken_sets_the_row_aside(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subscriber of logical replication writes without asking the constraints. Where a run only follows what changed
    and parents are many, nobody looks, and gold ends the run; a whole one sets the row aside."""

    def orphaned(key: int) -> str:
        return f"""SET session_replication_role = replica;
        INSERT INTO movimento VALUES ({key}, 5, 'x', '2024-01-01', 777)"""

    def aside() -> list[tuple[int, list[str]]]:
        return [(row["id_movimento"], row["_reasons"]) for row in keyed_lake.table("silver", "movimento__quarantine")]

    few, many = FEW_OR_MANY_PARENTS
    monkeypatch.setattr(judging, "BROADCAST_ROWS", many)
    execute(keyed_lake.address, orphaned(900))
    with pytest.raises(QualityFault, match="a join lost or multiplied rows"):
        keyed_lake.run()
    keyed_lake.run("bronze", "silver", full="movimento")
    assert aside() == [(900, ["cartao:missing"])]

    monkeypatch.setattr(judging, "BROADCAST_ROWS", few)
    execute(keyed_lake.address, orphaned(901))
    keyed_lake.run("bronze", "silver")
    assert aside() == [(900, ["cartao:missing"]), (901, ["cartao:missing"])]


def test_a_primary_key_whose_index_is_not_valid_guarantees_nothing(keyed_lake: Lake) -> None:
    execute(
        keyed_lake.address,
        "ALTER TABLE movimento RENAME TO antigo",
        """CREATE TABLE movimento (id bigint NOT NULL, vlr_transacao numeric(10,2), des_transacao text, data_movimento timestamp,
        id_cartao bigint) PARTITION BY RANGE (id)""",
        "CREATE TABLE m1 PARTITION OF movimento FOR VALUES FROM (0) TO (1000)",
        "ALTER TABLE ONLY movimento ADD PRIMARY KEY (id)",
        "INSERT INTO movimento SELECT * FROM antigo UNION ALL SELECT * FROM antigo WHERE id = 7",
        "INSERT INTO movimento SELECT id, 99, des_transacao, data_movimento, id_cartao FROM antigo WHERE id = 8",
    )
    settings = keyed_lake.run("bronze", "silver")
    assert {row["_reasons"][0] for row in keyed_lake.table("silver", "movimento__quarantine")} == {"key:conflict"}
    run = run_log.last_run(settings.silver_path, "cartoes")
    assert run is not None
    table_run = run.table("movimento")
    assert (table_run.rows_in, table_run.rows_out, table_run.set_aside, table_run.copies) == (202, 199, 2, 1)


def test_a_run_that_fails_leaves_no_file_of_its_work(keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = keyed_lake.settings()

    def files() -> list[str]:
        return sorted(str(path) for layer in names.LAYERS for path in settings.layer_path(layer).rglob("*.parquet"))

    before = files()

    def broken(*_: object) -> None:
        raise StorageFault("broken")

    for module, name in (
        (versions, "evidence"),
        (bronze_readers, "source_totals"),
        (checks, "examples"),
        (export_csv, "read_back"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, broken)
            for layer in names.LAYERS:
                if (name, layer) in {
                    ("evidence", layer),
                    ("source_totals", "bronze"),
                    ("examples", "silver"),
                    ("read_back", "gold"),
                }:
                    with pytest.raises(StorageFault, match="broken"):
                        keyed_lake.run(layer, full=ALL)
                    assert files() == before, (name, layer)


def files_of(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def test_an_incremental_run_that_fails_leaves_no_file_either(keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = keyed_lake.settings()
    execute(keyed_lake.address, "UPDATE associado SET nome = 'x' WHERE id < 4", "DELETE FROM movimento WHERE id = 1")

    def broken(*_: object) -> None:
        raise StorageFault("broken")

    for layer, places in {
        "bronze": ("bronze.incremental._affected", "lake.changes.measured", "lake.changes.save"),
        "silver": (
            "lake.changes._proved",
            "silver.incremental._prove",
            "lake.changes.splice_differing",
            "silver.history._apply",
            "silver.history.splice",
        ),
        "gold": ("lake.changes._proved", "gold.proof._checksums_of_keys", "export.csv.read_back"),
    }.items():
        before = files_of(settings.layer_path(layer))
        for place in places:
            with monkeypatch.context() as patch, pytest.raises(StorageFault, match="broken"):
                patch.setattr(f"pipelines.{place}", broken)
                keyed_lake.run(layer)
            assert files_of(settings.layer_path(layer)) == before, place
        keyed_lake.run(layer)
    assert agree(keyed_lake) == 199


def test_guarantees_are_what_constraints_promise_of_every_row(keyed: Lake) -> None:
    def guarantees() -> dict[str, tuple[str, ...]]:
        run = run_log.last_run(keyed.run("bronze").bronze_path, "cartoes")
        assert run is not None
        return {table.name: table.guaranteed for table in run.tables}

    assert guarantees() == {
        "associado": ("key",),
        "conta": ("key", "id_associado"),
        "cartao": ("key", "id_conta", "id_associado"),
        "movimento": ("key", "id_cartao"),
    }
    execute(
        keyed.address,
        "ALTER TABLE movimento DROP CONSTRAINT movimento_id_cartao_fkey",
        "ALTER TABLE movimento ADD FOREIGN KEY (id_cartao) REFERENCES cartao NOT VALID",
        "ALTER TABLE movimento DROP CONSTRAINT movimento_pkey, ADD PRIMARY KEY (id, data_movimento)",
        "CREATE TABLE conta_velha () INHERITS (conta)",
        "ALTER TABLE cartao DROP CONSTRAINT cartao_id_associado_fkey",
        "ALTER TABLE cartao ADD FOREIGN KEY (id_associado) REFERENCES conta",
    )
    assert guarantees() == {"associado": ("key",), "conta": (), "cartao": ("key", "id_conta"), "movimento": ()}
