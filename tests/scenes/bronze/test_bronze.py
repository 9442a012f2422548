"""Bronze on a real PostgreSQL: exact values, one snapshot, clear refusals before anything is read."""

import json
from datetime import datetime
from decimal import Decimal

import psycopg2.errors
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from conf.settings import Postgres, load
from pipelines.bronze import job as bronze_job
from pipelines.bronze import loads as bronze_loads
from pipelines.bronze import readers as bronze_readers
from pipelines.core.errors import SourceFault, StorageFault
from tests.support.lake import Lake
from tests.support.source import LOOSE, execute, query


def count(lakehouse: Lake, name: str) -> int:
    """The rows of a table that was loaded in full."""
    files = DeltaTable(lakehouse.settings().bronze_path / "cartoes" / name).file_uris()
    return sum(pq.read_metadata(file).num_rows for file in files)


def test_values_arrive_exactly_and_what_does_not_fit_is_rescued_as_text(lakehouse: Lake) -> None:
    execute(
        lakehouse.address,
        *LOOSE,
        """INSERT INTO movimento VALUES
        (1, 12345678.90, E' a\\n"b" ', '2018-11-04 00:30:00.123456', 1),
        (2, 123456789.00, '', 'infinity', 2147483647),
        (3, 1.005, NULL, '0044-03-15 00:00:00 BC', NULL),
        (4, 'NaN', 'emoji 😀', '10000-01-01', 1),
        (5, 1.5000, 'x', '0001-01-01', 1),
        (6, '-Infinity', 'x', '9999-12-31 23:59:59.999999', 1)""",
    )
    lakehouse.run("bronze")
    rows = {row["id"]: row for row in lakehouse.table("bronze", "movimento")}
    assert rows[1]["vlr_transacao"] == Decimal("12345678.90") and rows[1]["des_transacao"] == ' a\n"b" '
    assert rows[1]["data_movimento"] == datetime(2018, 11, 4, 0, 30, 0, 123456) and rows[1]["_rescued"] is None
    assert rows[5]["vlr_transacao"] == Decimal("1.50") and rows[5]["data_movimento"] == datetime(1, 1, 1)
    assert rows[6]["data_movimento"] == datetime(9999, 12, 31, 23, 59, 59, 999999)
    rescued = {key: json.loads(row["_rescued"]) for key, row in rows.items() if row["_rescued"]}
    assert rescued == {
        2: {"vlr_transacao": "123456789.00", "data_movimento": "infinity"},
        3: {"vlr_transacao": "1.005", "data_movimento": "0044-03-15 00:00:00 BC"},
        4: {"vlr_transacao": "NaN", "data_movimento": "10000-01-01 00:00:00"},
        6: {"vlr_transacao": "-Infinity"},
    }
    assert rows[2]["vlr_transacao"] is None and rows[2]["data_movimento"] is None
    assert (rows[2]["des_transacao"], rows[3]["des_transacao"], rows[4]["des_transacao"]) == ("", None, "emoji 😀")
    assert {row["_batch"] for row in rows.values()} == {1}


def test_columns_that_no_contract_names_come_along(lakehouse: Lake) -> None:
    execute(
        lakehouse.address,
        *LOOSE,
        """ALTER TABLE associado ADD "Último Login" timestamptz, ADD pontos numeric(6,3), ADD perfil jsonb, ADD taxa real,
        ADD tags text[], ADD valor_livre numeric""",
        """INSERT INTO associado (id, "Último Login", pontos, perfil, taxa, tags, valor_livre)
        VALUES (1, '2024-01-01 12:00-03', 1.250, '{"a": 1}', 0.5, '{x,"y z"}', 1.10)""",
    )
    lakehouse.run("bronze")
    (row,) = lakehouse.table("bronze", "associado")
    assert str(row["Último Login"]) == "2024-01-01 15:00:00" and row["pontos"] == Decimal("1.250")
    assert (row["perfil"], row["taxa"], row["tags"], row["valor_livre"]) == ('{"a": 1}', 0.5, '{x,"y z"}', "1.10")


def test_everything_that_is_wrong_with_the_source_is_named_before_anything_is_written(lakehouse: Lake) -> None:
    execute(
        lakehouse.address,
        *LOOSE[:3],
        "ALTER TABLE cartao DROP id_conta, DROP data_criacao",
        "ALTER TABLE conta ALTER data_criacao TYPE text",
        'ALTER TABLE associado ALTER nome TYPE real USING 0, ADD _batch int, ADD "Email" text, ADD x int, ADD "X" int',
    )
    with pytest.raises(SourceFault) as caught:
        lakehouse.run("bronze")
    for expected in (
        "table public.movimento is missing",
        "column public.cartao.id_conta is missing",
        "column public.conta.data_criacao is text, which cannot become timestamp_ntz exactly",
        "column public.associado.nome is float4, which cannot become string exactly",
        "column public.associado._batch: bronze has a column of this name",
        "column public.associado.Email: bronze has a column whose name differs only in case",
        "column public.associado.X: bronze has a column whose name differs only in case",
    ):
        assert expected in str(caught.value)
    assert "cartao.data_criacao" not in str(caught.value)  # optional
    assert not (lakehouse.folder / "lake/bronze/cartoes").exists()


def test_a_table_larger_than_one_range_arrives_whole(lakehouse: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bronze_readers, "SMALL_BYTES", 8192)
    monkeypatch.setattr(bronze_readers, "RANGE_BYTES", 8192)
    execute(
        lakehouse.address,
        *LOOSE,
        "INSERT INTO movimento SELECT i, i, repeat('x', 50), '2024-01-01', 1 FROM generate_series(1, 5000) i",
        "DELETE FROM movimento WHERE id % 7 = 0",
        "CREATE TABLE movimento_2023 () INHERITS (movimento)",
        "INSERT INTO movimento_2023 SELECT i, i, repeat('y', 300), '2023-01-01', 1 FROM generate_series(10001, 19000) i",
    )
    settings = lakehouse.run("bronze")
    path = settings.bronze_path / "cartoes/movimento"
    assert len(DeltaTable(path).file_uris()) > 10
    assert sorted(DeltaTable(path).to_pyarrow_table(columns=["id"])["id"].to_pylist()) == [
        number for (number,) in query(lakehouse.address, "SELECT id FROM movimento ORDER BY id")
    ]


def test_views_and_partitioned_tables_are_read_too(lakehouse: Lake) -> None:
    execute(
        lakehouse.address,
        *LOOSE[:3],
        """CREATE TABLE m (id int, vlr_transacao numeric(10,2), des_transacao text, data_movimento timestamp, id_cartao int)
        PARTITION BY RANGE (id)""",
        "CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20)",
        "INSERT INTO m SELECT i, i, 'x', '2024-01-01', 1 FROM generate_series(0, 19) i",
        "CREATE VIEW movimento AS SELECT * FROM m",
    )
    lakehouse.run("bronze")
    assert count(lakehouse, "movimento") == 20
    execute(lakehouse.address, "DROP VIEW movimento", "ALTER TABLE m RENAME TO movimento")
    lakehouse.run("bronze")
    assert count(lakehouse, "movimento") == 20


def test_all_tables_are_read_under_one_snapshot(lakehouse: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer adds a card and its movement in one transaction after the snapshot was taken: neither arrives."""
    execute(lakehouse.address, *LOOSE)
    plans = bronze_loads.read_plans

    def plans_then_write(*arguments):  # type: ignore[no-untyped-def]
        made = plans(*arguments)
        execute(
            lakehouse.address,
            "BEGIN; INSERT INTO cartao (id) VALUES (1); INSERT INTO movimento (id, id_cartao) VALUES (1, 1); COMMIT",
        )
        return made

    monkeypatch.setattr(bronze_job, "read_plans", plans_then_write)
    lakehouse.run("bronze")
    assert count(lakehouse, "cartao") == count(lakehouse, "movimento") == 0
    monkeypatch.undo()
    lakehouse.run("bronze")
    assert count(lakehouse, "cartao") == count(lakehouse, "movimento") == 1


def test_what_a_snapshot_does_not_keep_out_waits_until_all_is_read(
    lakehouse: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        lakehouse.address,
        *LOOSE,
        "INSERT INTO movimento (id) SELECT generate_series(1, 100)",
        "ALTER TABLE cartao RENAME TO plastico",
        "CREATE VIEW cartao AS SELECT * FROM plastico",
        "ALTER TABLE conta RENAME TO contas",
        "CREATE MATERIALIZED VIEW conta AS SELECT * FROM contas",
    )
    plans, waited = bronze_loads.read_plans, list[str]()

    def plans_then_disturb(*arguments):  # type: ignore[no-untyped-def]
        made = plans(*arguments)
        for disturbance in (
            "TRUNCATE movimento",
            "VACUUM FULL movimento",
            "ALTER TABLE movimento DROP des_transacao",
            "TRUNCATE plastico",
            "REFRESH MATERIALIZED VIEW conta",
        ):
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                execute(lakehouse.address, "SET lock_timeout = '100ms'", disturbance)
            waited.append(disturbance)
        return made

    monkeypatch.setattr(bronze_job, "read_plans", plans_then_disturb)
    lakehouse.run("bronze")
    assert count(lakehouse, "movimento") == 100 and len(waited) == 5


def test_a_failed_first_run_leaves_nothing_behind_and_the_next_one_works(lakehouse: Lake) -> None:
    """The value that the server cannot read is a card number: it must not be in the message."""
    execute(
        lakehouse.address,
        *LOOSE,
        "INSERT INTO cartao (id, num_cartao) SELECT i, i FROM generate_series(1, 200000) i",
        "INSERT INTO cartao (id, num_cartao) VALUES (0, '4111111111111111')",
        "ALTER TABLE cartao RENAME TO plastico",
        "CREATE VIEW cartao AS SELECT id, num_cartao::int, nom_impresso, id_conta, id_associado FROM plastico",
    )
    with pytest.raises(SourceFault, match=r"reading public.cartao from .* \(SQLSTATE 22003, numeric_value") as caught:
        lakehouse.run("bronze")
    assert "4111" not in str(caught.value)
    execute(lakehouse.address, "DELETE FROM plastico WHERE id % 1000 = 0")
    bronze_path = lakehouse.settings().bronze_path
    assert not list((bronze_path / "cartoes/cartao").glob("*.parquet"))
    lakehouse.run("bronze")
    assert count(lakehouse, "cartao") == 199_800


def test_a_count_that_the_source_cannot_make_names_its_table(lakehouse: Lake) -> None:
    execute(
        lakehouse.address,
        *LOOSE,
        "INSERT INTO movimento (id) SELECT generate_series(1, 5000)",
        "ALTER TABLE conta RENAME TO contas",
        "INSERT INTO contas (id) VALUES (1)",
        "CREATE FUNCTION ler(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'segredo %', $1; END $$",
        "CREATE VIEW conta AS SELECT public.ler(id) AS id, tipo, data_criacao, id_associado FROM contas WHERE public.ler(id) > 0",
    )
    with pytest.raises(SourceFault, match=r"public.conta") as caught:
        lakehouse.run("bronze")
    assert "snapshot" not in str(caught.value)


def test_row_level_security_is_an_error_not_fewer_rows(lakehouse: Lake, server: Postgres) -> None:
    role = f"leitor_{server.host[-6:]}"
    execute(
        lakehouse.address,
        *LOOSE,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"REVOKE SELECT ON movimento FROM {role}",
        f"GRANT SELECT (id, vlr_transacao, des_transacao, data_movimento, id_cartao) ON movimento TO {role}",
        "ALTER TABLE conta ENABLE ROW LEVEL SECURITY",
    )
    try:
        reader = Lake(lakehouse.folder, lakehouse.address.model_copy(update={"user": role}), lakehouse.spark)
        with pytest.raises(SourceFault, match=r"table public.conta in .*row-level security policy would hide rows"):
            reader.run("bronze")
        execute(lakehouse.address, "ALTER TABLE conta DISABLE ROW LEVEL SECURITY")
        reader.run("bronze")  # read-only rights suffice
        execute(lakehouse.address, f"REVOKE SELECT ON conta FROM {role}")
        with pytest.raises(SourceFault, match=r"column public.conta.id: no right to read it"):
            reader.run("bronze")
    finally:
        execute(lakehouse.address, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_role_settings_do_not_change_what_arrives(lakehouse: Lake) -> None:
    name = lakehouse.address.database
    execute(
        lakehouse.address,
        *LOOSE,
        "ALTER TABLE conta RENAME TO lenta",
        "CREATE VIEW conta AS SELECT lenta.* FROM pg_sleep(0.5) LEFT JOIN lenta ON true",
        "ALTER TABLE associado ADD quando timestamptz, ADD momentos timestamptz[], ADD quanto interval, ADD bytes bytea",
        "INSERT INTO associado VALUES (1, 'a', 'b', 1, 'c', '2018-11-04 02:30+00', '{2018-11-04 02:30+00}', '1 day 02:03', '\\xff')",
    )
    path = lakehouse.run("bronze").bronze_path / "cartoes/associado"
    before = DeltaTable(path).to_pyarrow_table().drop_columns("_batch").to_pylist()
    for setting in (
        "TimeZone = 'America/Sao_Paulo'",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'iso_8601'",
        "bytea_output = 'escape'",
        "statement_timeout = '300ms'",
        "default_transaction_isolation = 'serializable'",
    ):
        execute(lakehouse.address, f"ALTER DATABASE {name} SET {setting}")
    lakehouse.run("bronze")
    assert DeltaTable(path).to_pyarrow_table().drop_columns("_batch").to_pylist() == before
    assert (before[0]["quanto"], str(before[0]["quando"])) == ("1 day 02:03:00", "2018-11-04 02:30:00+00:00")


def test_comments_of_the_contract_are_in_the_table_and_bronze_is_private(lakehouse: Lake) -> None:
    execute(lakehouse.address, *LOOSE)
    settings = lakehouse.run("bronze")
    assert settings.bronze_path.stat().st_mode & 0o777 == 0o700
    schema = json.loads(DeltaTable(settings.bronze_path / "cartoes/cartao").schema().to_json())
    assert schema["fields"][1]["metadata"] == {"comment": "Card number, 13 to 19 digits"}


def test_parquet_holds_timestamps_without_zone(lakehouse: Lake) -> None:
    execute(lakehouse.address, *LOOSE, "INSERT INTO conta VALUES (1, 'x', '2018-11-04 00:30', 1)")
    settings = lakehouse.run("bronze")
    (file,) = DeltaTable(settings.bronze_path / "cartoes/conta").file_uris()
    assert "isAdjustedToUTC=false" in str(pq.ParquetFile(file).schema.column(2))


def test_a_folder_that_is_not_ours_is_refused(lakehouse: Lake) -> None:
    execute(lakehouse.address, *LOOSE)
    foreign = lakehouse.settings().bronze_path / "cartoes/conta"
    foreign.mkdir(parents=True)
    (foreign.parents[1] / ".lock").touch()
    (foreign / "notes.txt").write_text("mine")
    with pytest.raises(StorageFault, match="files that are no Delta table"):
        lakehouse.run("bronze")
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]


def test_a_server_that_cannot_be_reached_is_named_without_its_password(lakehouse: Lake) -> None:
    settings, _ = load({"DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/d"}, base=lakehouse.folder)
    assert settings.postgres is not None
    nowhere = Lake(lakehouse.folder, settings.postgres, lakehouse.spark)
    with pytest.raises(SourceFault, match=r"127.0.0.1:1/d, user u") as caught:
        nowhere.run("bronze", RETRY_SECONDS="1")
    assert "s3cret" not in str(caught.value)
