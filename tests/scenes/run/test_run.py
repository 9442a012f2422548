"""Whole runs against a real PostgreSQL, compared cell by cell with one SQL query over the same source."""

import hashlib
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame

from conf.contract import Pii
from conf.settings import Settings
from gold.cartoes import movimento_flat
from pipelines.core import catalogue, names
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault, StorageFault, UsageFault
from pipelines.export import csv as export_csv
from pipelines.export.publish import export as export_again
from pipelines.lake import delta, folders, run_log
from pipelines.run.layers import RunRequest, run_layers
from pipelines.seed.postgres import seed
from tests.support.lake import Lake
from tests.support.oracle import HEADER, agree, cells
from tests.support.source import PERSONAL, TABLES, execute, fill

TABLE_NAMES = ("associado", "conta", "cartao", "movimento")


def test_seeded_data_agree_with_the_oracle_and_a_second_run_gives_the_same_bytes(lakehouse: Lake) -> None:
    with Report() as report:
        seed(
            lakehouse.settings(SEED__MOVIMENTOS="3000"),
            lakehouse.address,
            catalogue.tables_of("bronze", "cartoes"),
            False,
            report,
        )
    settings = lakehouse.run()
    assert agree(lakehouse) == 3000
    first = lakehouse.csv
    lakehouse.run()
    assert lakehouse.csv == first
    run = run_log.last_run(settings.gold_path, "cartoes")
    assert run is not None and (run.run, run.upstream_run, run.snapshot != "") == (2, 2, True)
    assert run.table("movimento_flat").csv_sha256 == hashlib.sha256(first).hexdigest()
    assert [path.name for path in settings.export_path.iterdir()] == ["movimento_flat.csv"]


def test_nasty_data_agree_with_the_oracle(nasty_lake: Lake) -> None:
    assert agree(nasty_lake) == 16
    assert b"\r\n" not in nasty_lake.csv.replace(b"cr\rcr\r\n.", b"") and b"4111111111111111" not in nasty_lake.csv
    assert nasty_lake.csv.count(b'"linha 1\nlinha 2"') == 1
    assert not any(nasty_lake.table("silver", f"{name}__quarantine") for name in TABLE_NAMES)


def test_the_oracle_notices_a_changed_cell(nasty_lake: Lake) -> None:
    path, before = nasty_lake.folder / "export/movimento_flat.csv", nasty_lake.csv
    try:
        path.write_bytes(before.replace(b"-0.05", b"-0.06"))
        with pytest.raises(AssertionError):
            agree(nasty_lake)
    finally:
        path.write_bytes(before)


def test_the_delta_log_has_statistics_of_keys_dates_and_amounts_only(nasty_lake: Lake) -> None:
    settings = nasty_lake.settings()
    for table in (*catalogue.tables_of("silver", "cartoes"), *catalogue.tables_of("gold", "cartoes")):
        log = settings.layer_path(table.layer) / table.domain / table.name / "_delta_log"
        lines = [json.loads(line) for path in log.glob("*.json") for line in path.read_text("utf-8").splitlines()]
        stats = [json.loads(line["add"]["stats"]) for line in lines if "add" in line]
        indexed = {name for statistics in stats for name in (*statistics["minValues"], *statistics["nullCount"])}
        assert indexed == {c.name for c in table.columns if c.pii is Pii.NONE and c.type != "string"}
    texts = nasty_lake.log_texts()
    assert len(texts) > 8
    assert [word for word in PERSONAL if any(word in text for text in texts)] == []


@pytest.mark.jvm
def test_comments_reach_the_tables_that_spark_writes(nasty_lake: Lake) -> None:
    frame = nasty_lake.spark.read.format("delta").load(str(nasty_lake.settings().gold_path / "cartoes/movimento_flat"))
    assert {field.name: field.metadata.get("comment") for field in frame.schema} == {
        column.name: column.comment for column in movimento_flat.TABLE.columns
    }


def test_bad_rows_are_set_aside_with_their_reason_until_they_are_repaired_at_the_source(nasty_lake: Lake) -> None:
    execute(
        nasty_lake.address,
        "INSERT INTO associado VALUES (7, 'duas', 'vezes', 1, 'x@y'), (7, 'DUAS', 'vezes', 1, 'x@y'), (NULL, 'sem', 'id', 1, 'x@y')",
        "INSERT INTO associado SELECT * FROM associado WHERE id = 4",
        "INSERT INTO conta VALUES (20, 'corrente', NULL, 7), (21, 'corrente', NULL, 999)",
        """INSERT INTO cartao VALUES (30, '1', 'x', NULL, 20, 1), (31, '2', 'x', NULL, 1, NULL), (32, '3', 'x', NULL, 888, 7),
        (33, '5555555555554444', 'x', NULL, 999, 1)""",
        """INSERT INTO movimento VALUES (100, 1, 'x', '2024-01-01', 30), (101, 1, 'x', '2024-01-01', 12345), (102, NULL, 'x', '2024-01-01', 1),
        (103, 'NaN', 'x', NULL, 1), (104, 1.005, 'x', 'infinity', NULL), (105, 1, 'x', '2024-01-01', 1), (105, 1, ' x', '2024-01-01', 1),
        (106, 1, 'x', '2024-01-01', 1), (106, 2, 'x', '2024-01-01', 1), (107, 100000000, 'x', '2024-01-01', 1),
        (NULL, 1, 'Segredo', '2024-01-01', 1), (NULL, 1, 'Segredo', '2024-01-01', 1)""",
        "UPDATE movimento SET id_cartao = 12345, des_transacao = 'Segredo' WHERE id = 8",
    )
    settings = nasty_lake.run(CARD_NUMBERS="plain")
    # 15 good ones and movement 105, whose two copies are alike once trimmed
    assert agree(nasty_lake, plain=True) == 16
    assert b"4111111111111111" in nasty_lake.csv
    aside = {name: nasty_lake.table("silver", f"{name}__quarantine") for name in TABLE_NAMES}
    reasons = {name: {row[f"id_{name}"]: row["_reasons"] for row in rows} for name, rows in aside.items()}
    assert reasons == {
        "associado": {7: ["key:conflict"], None: ["key:missing"]},
        "conta": {20: ["associado:quarantined"], 21: ["associado:missing"]},
        "cartao": {
            30: ["conta:quarantined"],
            31: ["id_associado:null"],
            32: ["conta:missing", "associado:quarantined"],
            33: ["conta:missing"],
        },
        "movimento": {
            None: ["key:missing"],
            8: ["cartao:missing"],
            100: ["cartao:quarantined"],
            101: ["cartao:missing"],
            102: ["vlr_transacao:null"],
            103: ["unreadable:vlr_transacao", "data_movimento:null"],
            104: ["unreadable:vlr_transacao", "unreadable:data_movimento", "id_cartao:null"],
            106: ["key:conflict"],
            107: ["unreadable:vlr_transacao"],
        },
    }
    assert {row["num_cartao"] for row in aside["cartao"]} == {"*", "************4444"}
    run = nasty_lake.last("silver")
    for name, numbers in {"associado": (10, 6, 3, 1), "movimento": (28, 16, 10, 2)}.items():
        table_run = run.table(name)
        assert (table_run.rows_in, table_run.rows_out, table_run.set_aside, table_run.copies) == numbers
        assert table_run.rows_in == table_run.rows_out + table_run.set_aside + table_run.copies

    execute(
        nasty_lake.address,
        "DELETE FROM associado WHERE id = 7 OR id IS NULL",
        "DELETE FROM conta WHERE id >= 20",
        "DELETE FROM cartao WHERE id >= 30",
        "DELETE FROM movimento WHERE id IN (101, 102, 103, 104, 106, 107) OR id IS NULL",
        "UPDATE movimento SET id_cartao = 1 WHERE id IN (8, 100)",
    )
    nasty_lake.run(CARD_NUMBERS="plain")
    assert agree(nasty_lake, plain=True) == 18
    assert not any(nasty_lake.table("silver", f"{name}__quarantine") for name in TABLE_NAMES)
    logs = settings.silver_path.rglob("*__quarantine/_delta_log/*.json")
    assert "Segredo" not in "".join(path.read_text("utf-8") for path in logs)


def leave_a_killed_run(lakehouse: Lake) -> None:
    """What a run leaves that was killed before its first commit."""
    settings = lakehouse.settings()
    for layer in names.LAYERS:
        for name in ("cartoes/movimento", "cartoes/movimento_flat", "_runs"):
            log = settings.layer_path(layer) / name / "_delta_log"
            log.mkdir(parents=True)
            (log.parent / "part-00000-half.parquet").write_bytes(b"PAR1")
        (settings.layer_path(layer) / ".lock").touch()


def test_a_data_file_that_is_gone_is_named_and_the_old_gold_stays(nasty_lake: Lake) -> None:
    settings = nasty_lake.settings()
    before = nasty_lake.csv
    (file,) = delta.file_paths(settings.silver_path / "cartoes/conta", 0)
    Path(file).unlink()
    with pytest.raises(StorageFault, match=Path(file).name):
        nasty_lake.run("gold")
    assert nasty_lake.csv == before
    shutil.rmtree(settings.silver_path / "cartoes/conta")
    with pytest.raises(StorageFault, match="silver/cartoes/conta is gone"):
        nasty_lake.run("gold")
    with pytest.raises(
        StorageFault,
        match="silver/cartoes/conta is gone; restore it from a backup, or delete .*/silver and run `make silver`",
    ):
        nasty_lake.run("silver")


def test_a_run_that_cannot_be_recorded_puts_the_old_csv_back_which_export_writes_again_unless_a_newer_one_did(
    nasty_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = nasty_lake.settings()
    before = nasty_lake.csv
    execute(nasty_lake.address, "DELETE FROM movimento WHERE id = 1")
    nasty_lake.run("bronze", "silver")
    left = settings.export_path / ".movimento_flat.csv.99999999.x.half"  # a killed run's
    left.touch()

    def full(*_: object) -> None:
        assert nasty_lake.csv != before
        raise StorageFault("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageFault):
        patch.setattr(run_log, "record", full)
        nasty_lake.run("gold")
    assert nasty_lake.csv == before and len(nasty_lake.table("gold", "movimento_flat")) == 16
    assert [path.name for path in settings.export_path.iterdir()] == ["movimento_flat.csv"]

    (settings.export_path / "movimento_flat.csv").unlink()
    with Report() as report:
        export_again(settings, (movimento_flat.TABLE,), report)
        assert nasty_lake.csv == before
        true = folders.publishing

        def run_meanwhile(given: Settings):  # type: ignore[no-untyped-def]
            monkeypatch.setattr(folders, "publishing", true)
            nasty_lake.run("gold")
            return true(given)

        monkeypatch.setattr(folders, "publishing", run_meanwhile)
        export_again(settings, (movimento_flat.TABLE,), report)
    assert agree(nasty_lake) == 15
    assert [path.name for path in settings.export_path.iterdir()] == ["movimento_flat.csv"]


def test_a_source_as_the_er_diagram_draws_it_works_after_a_run_that_was_killed_before_its_first_commit(
    lakehouse: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cartao.data_criacao, the card number an integer, the account type an int code, ids int. A half-written CSV is
    closed to others, and long texts are read back."""
    leave_a_killed_run(lakehouse)
    modes: list[tuple[str, int]] = []
    read_back = export_csv.read_back

    def look(table: Any, file: Path) -> Any:
        modes.extend((path.name[0], path.stat().st_mode & 0o777) for path in file.parent.parent.iterdir())
        return read_back(table, file)

    monkeypatch.setattr(export_csv, "read_back", look)
    execute(
        lakehouse.address,
        "CREATE TABLE associado (id int PRIMARY KEY, nome varchar(50), sobrenome varchar(50), idade int, email varchar(99))",
        "CREATE TABLE conta (id int PRIMARY KEY, tipo int, data_criacao timestamp, id_associado int REFERENCES associado)",
        """CREATE TABLE cartao (id int PRIMARY KEY, num_cartao int, nom_impresso varchar(50), id_conta int REFERENCES conta,
        id_associado int REFERENCES associado)""",
        """CREATE TABLE movimento (id int PRIMARY KEY, vlr_transacao decimal(10,2), des_transacao varchar,
        data_movimento timestamp, id_cartao int REFERENCES cartao)""",
        "INSERT INTO associado VALUES (1, 'Ana', 'Lima', 30, 'a@b.c')",
        "INSERT INTO conta VALUES (1, 2, '2020-01-01', 1)",
        "INSERT INTO cartao VALUES (1, 12345678, 'ANA', 1, 1)",
        "INSERT INTO movimento VALUES (1, 10.50, 'x', '2024-01-01', 1)",
        "INSERT INTO movimento VALUES (2, 1, repeat('texto longo ', 300000), '2024-01-01', 1)",
    )
    lakehouse.run()
    assert set(modes) == {(".", 0o700)} and agree(lakehouse) == 2
    assert cells(lakehouse.csv)[1] == [
        "Ana",
        "Lima",
        "30",
        "10.50",
        "x",
        "2024-01-01 00:00:00",
        "****5678",
        "ANA",
        "",
        "2",
        "2020-01-01 00:00:00",
    ]


def test_an_empty_source_gives_a_csv_with_only_its_header(lakehouse: Lake) -> None:
    execute(lakehouse.address, *TABLES)
    lakehouse.run()
    assert lakehouse.csv == (",".join(HEADER) + "\n").encode()


def test_a_layer_without_a_complete_run_before_it_is_refused(lakehouse: Lake) -> None:
    fill(lakehouse)
    with pytest.raises(QualityFault, match="bronze has no complete run"):
        lakehouse.run("silver")
    lakehouse.run("bronze")
    with pytest.raises(QualityFault, match="silver has no complete run"):
        lakehouse.run("gold")


def test_a_join_that_loses_or_multiplies_a_movement_or_a_csv_that_lacks_one_or_a_cent_leaves_the_old_gold(
    nasty_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = nasty_lake.settings()
    path = settings.gold_path / "cartoes/movimento_flat"
    before, rows = nasty_lake.csv, nasty_lake.table("gold", "movimento_flat")
    true = movimento_flat.transform

    def losing(*frames: DataFrame) -> DataFrame:
        return true(*frames).where("_id_movimento <> 5")

    def doubling(*frames: DataFrame) -> DataFrame:
        return true(*frames).union(true(*frames).where("_id_movimento = 5"))

    def swapping(*frames: DataFrame) -> DataFrame:
        return losing(*frames).union(true(*frames).where("_id_movimento = 6"))

    def nothing_happened() -> bool:
        return nasty_lake.csv == before and delta.version(path) == 0 and len(list(path.glob("*.parquet"))) == 1

    for broken in (losing, doubling, swapping):
        entry = catalogue.Entry(movimento_flat.TABLE, broken)
        with monkeypatch.context() as patch, pytest.raises(QualityFault, match="a join lost or multiplied rows"):
            patch.setattr(catalogue, "entries", lambda layer, entry=entry: (entry,))
            nasty_lake.run("gold", full="movimento_flat")
        assert nothing_happened(), broken

    read_back = export_csv.read_back
    for lacking in (
        lambda read: read._replace(rows=read.rows - 1),
        lambda read: read._replace(sums={"vlr_transacao_movimento": Decimal(0)}),
    ):
        with monkeypatch.context() as patch, pytest.raises(QualityFault, match="records for 16 rows of gold"):
            patch.setattr(export_csv, "read_back", lambda *given, lacking=lacking: lacking(read_back(*given)))
            nasty_lake.run("gold", full="movimento_flat")
        assert nothing_happened()
    assert nasty_lake.table("gold", "movimento_flat") == rows


def test_a_lake_of_real_members_is_never_filled_from_the_embedded_server(nasty_lake: Lake) -> None:
    lost_env: Settings = nasty_lake.settings().model_copy(update={"postgres": None})
    with Report() as report, pytest.raises(UsageFault) as caught:
        run_layers(lost_env, RunRequest({"bronze"}), report)
    assert nasty_lake.address.address in str(caught.value) and "the embedded server" in str(caught.value)
    assert len(nasty_lake.table("bronze", "movimento")) == 16
