"""Sessions that are not ours alone: what a role, a database, a pooler or a hardened server sets or forbids changes
nothing of what arrives, and nothing of ours stays there."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import adbc_driver_manager
import pytest
from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.bronze.loads import read_plans
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import SourceFault, TransientFault
from pipelines.lake import run_log
from pipelines.sources.postgres import connection as postgres_connection
from pipelines.sources.postgres import reader
from pipelines.sources.postgres.connection import cancel, is_at_work, reading
from pipelines.sources.postgres.reader import WrittenFile
from pipelines.sources.postgres.snapshot import take_snapshot
from tests.support.lake import Lake
from tests.support.pooler import pooled
from tests.support.proxy import Proxy
from tests.support.source import NASTY, TABLES, connected, execute, fresh_database, query

NAMES = ("associado", "conta", "cartao", "movimento")

# Values whose text, and views whose rows and values, hang on settings of the session.
TELLING = (
    "CREATE SCHEMA hostil",
    "CREATE FUNCTION hostil.version() RETURNS text LANGUAGE sql AS 'SELECT ''nothing''::text'",
    "CREATE FUNCTION hostil.ne(regproc, int) RETURNS boolean LANGUAGE sql AS 'SELECT 1 / 0 = 0'",
    "CREATE OPERATOR hostil.<> (LEFTARG = regproc, RIGHTARG = int, FUNCTION = hostil.ne)",
    """ALTER TABLE associado ADD momento timestamptz DEFAULT '2018-11-04 02:30+00', ADD momentos timestamptz[] DEFAULT
    '{2018-11-04 02:30+00}', ADD quanto interval DEFAULT '1 day 02:03', ADD bytes bytea DEFAULT '\\xff', ADD varios bytea[]
    DEFAULT '{"\\\\xff"}', ADD valor money DEFAULT 1234.5, ADD reais float8[] DEFAULT '{0.1,1e23}', ADD nome_de regclass
    DEFAULT 'conta', ADD lexemas tsvector DEFAULT 'a:1'""",
    "ALTER TABLE conta RENAME TO contas",
    """CREATE VIEW conta AS SELECT *, to_char(1234.5, '999G999D99L') c1, to_char(timestamp '2024-03-01', 'TMMonth') c2,
    to_tsvector('os gatos') c3, timestamptz '2024-03-01 12:00+00'::text c4, 1.5::money::text c5 FROM contas""",
)

REFUSED = ("zero_damaged_pages", "ignore_checksum_failure")

# Of which the greatest value makes the server take more than its machine has.
TOO_MUCH = ("max_stack_depth", "recursive_worktable_factor")

# Values that a kind of setting does not say by itself.
HOSTILE = {
    "search_path": "hostil, pg_catalog, public",
    "TimeZone": "America/Sao_Paulo",
    "DateStyle": "SQL, DMY",
    "client_encoding": "LATIN1",
    "default_text_search_config": "pg_catalog.portuguese",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    **dict.fromkeys(("lc_messages", "lc_monetary", "lc_numeric", "lc_time"), "C.UTF-8"),
}


@pytest.fixture(scope="module")
def database(server: Postgres) -> Iterator[Postgres]:
    with fresh_database(server) as address:
        execute(address, *TABLES, *NASTY, *TELLING)
        yield address


@pytest.fixture
def role(database: Postgres) -> Iterator[Postgres]:
    """The address with a role that may only read."""
    name = f"leitor_{database.database}"
    execute(database, f"CREATE ROLE {name} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
    yield database.model_copy(update={"user": name})
    execute(database, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def lakehouse(tmp_path: Path, role: Postgres, spark: SparkSession) -> Lake:
    return Lake(tmp_path, role, spark)


@pytest.fixture(scope="module")
def expected(
    database: Postgres, tmp_path_factory: pytest.TempPathFactory, any_spark: SparkSession
) -> dict[str, list[dict[str, Any]]]:
    """What arrives when nobody set anything."""
    return arrived(Lake(tmp_path_factory.mktemp("lake"), database, any_spark))


def arrived(lakehouse: Lake) -> dict[str, list[dict[str, Any]]]:
    lakehouse.run("bronze", full=" ".join(NAMES), RETRY_SECONDS="0")
    return {name: [row | {"_batch": 0} for row in lakehouse.table("bronze", name)] for name in NAMES}


def hostile(database: Postgres, is_low: bool) -> list[tuple[str, str]]:
    """Each setting that a role may have, with a value other than the usual: the least, or the greatest."""
    rows = query(
        database,
        "SELECT name, vartype, enumvals, min_val, max_val, boot_val FROM pg_settings WHERE context IN ('user', 'superuser')"
        " AND name !~ '^transaction_(isolation|deferrable|read_only)$' ORDER BY name",
    )
    settings = []
    for name, kind, values, least, greatest, usual in rows:
        if name in HOSTILE:
            settings.append((name, HOSTILE[name]))
        elif kind == "bool" and name not in REFUSED:
            settings.append((name, "off" if usual == "on" else "on"))
        elif kind == "enum":
            others = [value for value in values if value != usual] or values
            settings.append((name, others[0] if is_low else others[-1]))
        elif kind in ("integer", "real") and (is_low or name not in TOO_MUCH):
            settings.append((name, least if is_low else greatest))
    assert len(settings) > 150
    return settings


def set_for(address: Postgres, settings: list[tuple[str, str]]) -> None:
    with connected(address.model_copy(update={"user": "lakehouse"})) as admin, admin.cursor() as cursor:
        for name, value in settings:
            values = value if name in ("search_path", "DateStyle") else f"'{value}'"
            cursor.execute(f"ALTER ROLE {address.user} SET {name} = {values}")


def alone(settings: list[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in settings if name not in names]


@pytest.mark.parametrize("is_low", [True, False], ids=["least", "greatest"])
def test_all_settings_that_a_role_may_have_change_nothing_together(
    is_low: bool, lakehouse: Lake, database: Postgres, expected: dict[str, list[dict[str, Any]]]
) -> None:
    set_for(lakehouse.address, hostile(database, is_low))
    assert arrived(lakehouse) == expected


@pytest.mark.long
@pytest.mark.parametrize("is_low", [True, False], ids=["least", "greatest"])
def test_each_setting_that_a_role_may_have_changes_nothing(
    is_low: bool, lakehouse: Lake, database: Postgres, expected: dict[str, list[dict[str, Any]]]
) -> None:
    differing = []
    for name, value in hostile(database, is_low):
        set_for(lakehouse.address, [(name, value)])
        if arrived(lakehouse) != expected:
            differing.append(name)
        execute(database, f"ALTER ROLE {lakehouse.address.user} RESET {name}")
    assert differing == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "on") for name in REFUSED),
        ("session_preload_libraries", "missing"),
        ("local_preload_libraries", "missing"),
    ],
)
def test_what_a_superuser_may_have_set_for_a_role_is_refused_by_name(name: str, value: str, lakehouse: Lake) -> None:
    set_for(lakehouse.address, [(name, value)])
    with pytest.raises(SourceFault, match=f"{name}.* RESET") as raised:
        lakehouse.run("bronze")
    assert not isinstance(raised.value, TransientFault)


@pytest.mark.parametrize("is_low", [True, False], ids=["least", "greatest"])
def test_a_pooler_that_takes_no_settings_changes_nothing(
    is_low: bool, lakehouse: Lake, database: Postgres, expected: dict[str, list[dict[str, Any]]]
) -> None:
    """Each transaction pins all by itself; only what ends a session before one begins cannot be mended there."""
    set_for(lakehouse.address, alone(hostile(database, is_low), "idle_session_timeout"))
    with Proxy(lakehouse.address) as proxy:
        proxy.takes_options = False
        lakehouse.address = proxy.address
        assert arrived(lakehouse) == expected


@pytest.mark.long
def test_nothing_of_ours_stays_on_the_sessions_of_a_pooler(
    lakehouse: Lake, database: Postgres, expected: dict[str, list[dict[str, Any]]]
) -> None:
    hostile_ones = (
        "SET TimeZone = 'Asia/Kathmandu'; SET quanto.custo = '1'; SET DateStyle = 'SQL, DMY'; SET row_security = on"
    )
    with pooled(lakehouse.address) as pooler:
        lakehouse.address = pooler
        with connected(pooler) as other, other.cursor() as cursor:
            cursor.execute(hostile_ones)
            assert arrived(lakehouse) == expected
        left = query(
            pooler,
            "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT IN ('TimeZone', 'DateStyle', 'row_security', 'quanto.custo')"
            " AND name NOT IN ('application_name', 'client_encoding')",
        )
        assert left == []
        assert arrived(lakehouse) == expected


def test_serializable_defaults_do_not_wait_for_a_writer(
    lakehouse: Lake, database: Postgres, expected: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "ANSWER_SECONDS", 2)
    serializable = [("default_transaction_isolation", "serializable"), ("default_transaction_read_only", "on")]
    set_for(lakehouse.address, [*serializable, ("default_transaction_deferrable", "on")])
    with connected(database) as writer, writer.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL SERIALIZABLE NOT DEFERRABLE; UPDATE contas SET tipo = 'q' WHERE id = 1")
        assert arrived(lakehouse) == expected
        cursor.execute("ROLLBACK")


def test_three_connections_are_enough(
    lakehouse: Lake, database: Postgres, expected: dict[str, list[dict[str, Any]]]
) -> None:
    execute(database, f"ALTER ROLE {lakehouse.address.user} CONNECTION LIMIT 3")
    assert arrived(lakehouse) == expected


def test_a_query_that_fails_leaves_its_connection_to_the_other_readers(
    role: Postgres, database: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the server gives no more, they would wait for it for ever."""
    execute(database, f"ALTER ROLE {role.user} CONNECTION LIMIT 3")
    true, files, (table,) = reader.shaped, list[WrittenFile](), catalogue.tables_of("bronze", "cartoes")[:1]

    barrier = threading.Barrier(2)

    def fails(*_: object) -> None:
        barrier.wait(20)
        monkeypatch.setattr(reader, "shaped", true)
        raise adbc_driver_manager.OperationalError("lost", status_code=adbc_driver_manager.AdbcStatusCode.IO)

    with take_snapshot(role, "public", [table.source_name]) as snapshot:
        (plan,) = read_plans(snapshot, (table,))
        with closing(reader.Reader(role, snapshot.exported, 1, Report(quiet=True))) as readers:
            monkeypatch.setattr(reader, "shaped", fails)

            def read() -> None:
                with suppress(SourceFault):
                    files.append(readers.read(plan, "", tmp_path))

            failing, other = (threading.Thread(target=read, daemon=True) for _ in range(2))
            failing.start()
            while not readers._connections:
                time.sleep(0.01)
            other.start()
            while not readers._is_full:
                time.sleep(0.01)
            barrier.wait(20)
            failing.join(20)
            other.join(10)
            readers.stop()
    assert [file.rows for file in files] == [6]


def test_queries_are_seen_and_canceled_under_whatever_role_they_run(role: Postgres, database: Postgres) -> None:
    other = f"outro_{database.database}"
    execute(database, f"CREATE ROLE {other}; GRANT {other} TO {role.user}; ALTER ROLE {role.user} NOINHERIT")
    set_for(role, [("role", other)])
    ended = threading.Event()

    def work() -> None:
        with pytest.raises(SourceFault, match="canceled"), reading(role) as connection:
            connection.rows("SELECT pg_sleep(60)", unhurried=True)
        ended.set()

    try:
        threading.Thread(target=work).start()
        while not query(
            database, "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active'"
        ):
            pass
        assert is_at_work(role)
        cancel(role)
        assert ended.wait(10) and not is_at_work(role)
    finally:
        execute(database, f"REVOKE {other} FROM {role.user}; DROP ROLE {other}")


def test_a_server_that_permits_no_look_at_its_sessions_is_not_taken_for_dead(
    role: Postgres, database: Postgres
) -> None:
    execute(database, "REVOKE SELECT ON pg_stat_activity FROM public")
    try:
        assert is_at_work(role)
    finally:
        execute(database, "GRANT SELECT ON pg_stat_activity TO public")


# What a hardened server may take from everybody, and what cannot be read without.
FORBIDDEN = {
    "FUNCTION set_config(text, text, boolean)": "",
    "FUNCTION pg_control_system()": "",
    "FUNCTION pg_control_checkpoint()": "",
    "FUNCTION pg_current_wal_insert_lsn()": "",
    "FUNCTION pg_current_wal_flush_lsn()": "",
    "FUNCTION pg_current_xact_id()": "",
    "FUNCTION pg_walfile_name(pg_lsn)": "",
    "FUNCTION pg_is_in_recovery()": "",
    "FUNCTION pg_cancel_backend(int)": "",
    "pg_settings": "",
    "pg_stat_activity": "",
    "pg_stat_gssapi": "",
    "pg_extension": "",
    "pg_database": "",
    "FUNCTION pg_export_snapshot()": "pg_export_snapshot",
    "FUNCTION version()": "version",
    "pg_class": "pg_class",
}


OFTEN = ("FUNCTION set_config(text, text, boolean)", "pg_settings", "pg_stat_activity", "FUNCTION pg_export_snapshot()")


@pytest.mark.parametrize(
    "thing", [each if each in OFTEN else pytest.param(each, marks=pytest.mark.long) for each in FORBIDDEN]
)
def test_what_a_hardened_server_forbids_is_done_without_or_named(
    thing: str, lakehouse: Lake, database: Postgres, expected: dict[str, list[dict[str, Any]]]
) -> None:
    right = "EXECUTE" if thing.startswith("FUNCTION") else "SELECT"
    execute(database, f"REVOKE {right} ON {thing} FROM public")
    try:
        if name := FORBIDDEN[thing]:
            with pytest.raises(SourceFault, match=f"may not use {name} of pg_catalog: GRANT"):
                lakehouse.run("bronze")
        else:
            assert arrived(lakehouse) == expected
    finally:
        execute(database, f"GRANT {right} ON {thing} TO public")


def test_what_functions_of_the_source_say_is_not_shown(
    lakehouse: Lake, database: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    """libpq writes a server's notices to standard error, unless the server sends none."""
    execute(
        database,
        """CREATE FUNCTION diz(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE WARNING ''%'', $1; RETURN $1; END';
        ALTER TABLE cartao RENAME TO cartoes; CREATE VIEW cartao AS SELECT id, diz(num_cartao) num_cartao, nom_impresso,
        data_criacao, id_conta, id_associado FROM cartoes""",
        f"GRANT SELECT ON cartao TO {lakehouse.address.user}",
    )
    try:
        lakehouse.run("bronze")
        assert "4111111111111111" in str(lakehouse.table("bronze", "cartao"))
        assert "4111111111111111" not in "".join(capfd.readouterr())
    finally:
        execute(database, "DROP VIEW cartao; ALTER TABLE cartoes RENAME TO cartao")


def test_what_a_view_sets_does_not_reach_another_table(
    lakehouse: Lake, database: Postgres, expected: dict[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.bronze.readers.LOCAL_READERS", 1)  # which reads one table after the other
    execute(
        database,
        "CREATE FUNCTION muda() RETURNS text LANGUAGE sql AS $$SELECT set_config('TimeZone', 'Asia/Kathmandu', false)$$",
        "ALTER TABLE movimento RENAME TO movimentos",
        "CREATE VIEW movimento AS SELECT m.* FROM movimentos m, (SELECT muda()) s",
        f"GRANT SELECT ON movimento TO {lakehouse.address.user}",
    )
    try:
        assert arrived(lakehouse) == expected
    finally:
        execute(database, "DROP VIEW movimento; ALTER TABLE movimentos RENAME TO movimento")


def test_a_partition_that_is_attached_while_a_table_is_read_is_read_with_the_next_snapshot(
    lakehouse: Lake, database: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(
        database,
        "ALTER TABLE movimento RENAME TO movimentos",
        "CREATE TABLE movimento (LIKE movimentos) PARTITION BY RANGE (id)",
        "CREATE TABLE metade (LIKE movimentos); INSERT INTO metade SELECT * FROM movimentos WHERE id BETWEEN 1 AND 5",
        "ALTER TABLE movimento ATTACH PARTITION metade FOR VALUES FROM (1) TO (6)",
        "CREATE TABLE outra (LIKE movimentos); INSERT INTO outra SELECT * FROM movimentos WHERE id BETWEEN 6 AND 9",
        f"GRANT SELECT ON movimento TO {lakehouse.address.user}",
    )
    true, true_read, attached = reader.source_totals, reader.Reader.read, threading.Event()

    def totals(snapshot, plan, *more):  # type: ignore[no-untyped-def]
        answer = true(snapshot, plan, *more)
        if plan.table.name == "movimento" and not attached.is_set():
            execute(database, "ALTER TABLE movimento ATTACH PARTITION outra FOR VALUES FROM (6) TO (10)")
            attached.set()
        return answer

    def read(self, *arguments):  # type: ignore[no-untyped-def]
        assert attached.wait(30)
        return true_read(self, *arguments)

    monkeypatch.setattr("pipelines.bronze.readers.source_totals", totals)
    monkeypatch.setattr(reader.Reader, "read", read)
    try:
        lakehouse.run("bronze", RETRY_SECONDS="0")
        run = run_log.last_run(lakehouse.settings().bronze_path, "cartoes")
        assert run is not None and run.table("movimento").rows_out == 9
        assert capsys.readouterr().err.count("trying again with a new snapshot") == 1
    finally:
        execute(database, "DROP TABLE IF EXISTS movimento, metade, outra; ALTER TABLE movimentos RENAME TO movimento")
