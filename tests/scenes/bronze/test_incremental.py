"""Bronze follows its source by what changed, and has what a full load would have, whatever happened at the source."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.commands.maintain import maintain
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.lake import run_log
from pipelines.lake.changes import TECHNICAL
from pipelines.lake.engine import count, engine, listed
from pipelines.lake.runs import Run, reason_for_full
from pipelines.lake.versions import table_version
from pipelines.sources.postgres import embedded, fingerprint
from pipelines.spark.frames import read
from tests.support.folders import server_home
from tests.support.lake import Lake
from tests.support.prepared import Prepared
from tests.support.source import connected, execute, fresh_database, query

SOURCE = (
    "CREATE TYPE tipo AS ENUM ('corrente', 'poupança')",
    "CREATE TYPE lugar AS (rua text, numero int)",
    "CREATE TABLE associado (id int PRIMARY KEY, nome text, sobrenome text, idade int, email text)",
    "CREATE TABLE conta (id int PRIMARY KEY, tipo tipo, data_criacao timestamp, id_associado int, onde lugar)",
    """CREATE TABLE cartao (id int PRIMARY KEY, num_cartao text, nom_impresso text, data_criacao timestamp, id_conta int,
    id_associado int, dobro int GENERATED ALWAYS AS (id * 2) VIRTUAL)""",
    """CREATE TABLE movimento (id int PRIMARY KEY, vlr_transacao numeric(10,2), des_transacao text, data_movimento timestamp,
    id_cartao int) PARTITION BY RANGE (id)""",
    "CREATE TABLE m1 PARTITION OF movimento FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE m2 PARTITION OF movimento FOR VALUES FROM (100) TO (200)",
    "CREATE TABLE m3 (LIKE m2 INCLUDING ALL)",
    "CREATE TABLE m4 (LIKE m2 INCLUDING ALL)",
    "INSERT INTO associado SELECT i, 'Ana', 'Lima', 30, 'a@b.c' FROM generate_series(1, 30) i",
    "INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i, ROW('a', i)::lugar FROM generate_series(1, 30) i",
    "INSERT INTO cartao SELECT i, '4111111111111111', 'ANA', '2020-01-01', i, i FROM generate_series(1, 30) i",
    "INSERT INTO movimento SELECT i, 1.25, 'x', '2024-01-01', i % 30 + 1 FROM generate_series(1, 190) i",
    "INSERT INTO m4 SELECT i, 1.25, 'x', '2024-01-01', 1 FROM generate_series(200, 205) i",
)


@pytest.fixture(scope="module")
def first_load(
    server: Postgres, any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prepared]:
    with fresh_database(server) as address:
        lakehouse = Lake(tmp_path_factory.mktemp("first_load"), address, any_spark)
        execute(address, *SOURCE)
        lakehouse.run("bronze")
        yield Prepared(lakehouse, server)


@pytest.fixture
def source(first_load: Prepared, tmp_path: Path) -> Iterator[Lake]:
    """A lake whose bronze has followed its source once."""
    with first_load.copied(tmp_path) as lakehouse:
        yield lakehouse


def last(lakehouse: Lake) -> Run:
    run = run_log.last_run(lakehouse.settings().bronze_path, "cartoes")
    assert run is not None
    return run


def how(lakehouse: Lake, *layers: str) -> dict[str, str]:
    """What the last run did with each table of its own."""
    runs = [run_log.last_run(lakehouse.settings().layer_path(layer), "cartoes") for layer in layers or ("bronze",)]
    return {table.name: table.how for run in runs if run for table in run.tables if not table.is_beside}


def fresh(lakehouse: Lake) -> Lake:
    """A lake that reads the same source for the first time."""
    return replace(lakehouse, folder=Path(tempfile.mkdtemp(dir=lakehouse.folder)))


def as_a_full_load(lakehouse: Lake) -> None:
    """Asserts that bronze, its batches folded, has the rows of a full load, and the run their checksums."""
    other = fresh(lakehouse)
    other.run("bronze")
    mine, theirs = last(lakehouse), last(other)
    with engine("bronze") as db:
        for table in catalogue.tables_of("bronze", "cartoes"):
            snapshot = table_version(lakehouse.settings().bronze_path, mine, table)
            full = table_version(other.settings().bronze_path, theirs, table)
            names = listed(name for name in full.types if name not in TECHNICAL)
            for a, b in ((snapshot, full), (full, snapshot)):
                left = count(db, f"(SELECT {names} FROM {a.sql} EXCEPT ALL SELECT {names} FROM {b.sql})")
                assert left == 0, (table.name, how(lakehouse))
            of = {column for column in mine.table(table.name).columns if column.name not in TECHNICAL}
            assert of == {column for column in theirs.table(table.name).columns if column.name not in TECHNICAL}
            assert mine.table(table.name).rows_out == theirs.table(table.name).rows_out
    shutil.rmtree(other.folder)


class Event(NamedTuple):
    """Something that happens to a table between two runs, and what the second run does with that table."""

    name: str
    sql: str
    how: str = "unchanged"


ANOTHER_TABLE = "full: another table has its name, or its partitions changed"
OTHER_COLUMNS = "full: its columns or their defaults changed"
OTHER_TYPE = "full: the type of a column changed: labels, members"
NO_KEY = "full: the source has no unique, not null key id"
IS_A_VIEW = "full: it is a view, or another kind of table than PostgreSQL's own"
NOTHING = Event("nothing", "SELECT 1")

# The same nights for each table.
EVENTS = {
    "associado": (
        NOTHING,
        Event(
            "rows come, go and change",
            "INSERT INTO associado VALUES (31, 'Novo', NULL, NULL, NULL); DELETE FROM associado WHERE id IN (4, 5);"
            "UPDATE associado SET nome = 'Eva' WHERE id = 6",
            "1 written, 1 updated, 2 deleted",
        ),
        Event("a key changes", "UPDATE associado SET id = 99 WHERE id = 7", "1 written, 0 updated, 1 deleted"),
        Event(
            "a row goes and comes back",
            "DELETE FROM associado WHERE id = 8; INSERT INTO associado VALUES (8, 'Outra', 'Lima', 30, 'a@b.c')",
            "0 written, 1 updated, 0 deleted",
        ),
        Event("a row is written as it was", "UPDATE associado SET nome = nome"),
        Event(
            "a savepoint is rolled back",
            "BEGIN; INSERT INTO associado VALUES (131, 'a'); SAVEPOINT s; INSERT INTO associado VALUES (132, 'b');"
            "UPDATE associado SET nome = 'x' WHERE id < 5; ROLLBACK TO s; SAVEPOINT t;"
            "INSERT INTO associado VALUES (133, 'c'); RELEASE t; COMMIT",
            "2 written, 0 updated, 0 deleted",
        ),
        Event("a transaction is rolled back", "BEGIN; DELETE FROM associado; ROLLBACK"),
        Event(
            "a table is emptied and filled",
            "TRUNCATE associado; INSERT INTO associado SELECT i, 'Ana', 'Lima', 30, 'a@b.c' FROM generate_series(10, 40) i",
            "9 written, 1 updated, 9 deleted",
        ),
        Event("a row changes after that", "UPDATE associado SET nome = 'again' WHERE id = 12", "0 written, 1 updated, 0 deleted"),
        Event(
            "others inherit from the table",
            "CREATE TABLE filha () INHERITS (associado); INSERT INTO filha SELECT * FROM ONLY associado WHERE id = 13",
            NO_KEY,
        ),
    ),
    "conta": (
        NOTHING,
        Event("a table is emptied", "TRUNCATE conta", "0 written, 0 updated, 30 deleted"),
        Event(
            "a table is filled",
            "INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i, ROW('b', i)::lugar FROM generate_series(1, 30) i",
            "30 written, 0 updated, 0 deleted",
        ),
        Event("a label is renamed", "ALTER TYPE tipo RENAME VALUE 'corrente' TO 'Corrente'", OTHER_TYPE),
        Event("a composite type gets a member", "ALTER TYPE lugar ADD ATTRIBUTE cep text", OTHER_TYPE),
        Event("vacuum full", "VACUUM FULL conta"),
        Event("a rewrite of the same rows", "ALTER TABLE conta SET UNLOGGED"),
        Event(
            "tables are swapped by rename",
            "CREATE TABLE nova (LIKE conta INCLUDING ALL);"
            "INSERT INTO nova SELECT id, 'poupança', '2021-01-01', 1, NULL FROM conta;"
            "ALTER TABLE conta RENAME TO velha; ALTER TABLE nova RENAME TO conta",
            ANOTHER_TABLE,
        ),
        Event(
            "tables are swapped by rename, the other one older than the last run",
            "ALTER TABLE conta RENAME TO nova; ALTER TABLE velha RENAME TO conta",
            ANOTHER_TABLE,
        ),
        Event(
            "the table becomes a view",
            "ALTER TABLE conta RENAME TO base; CREATE VIEW conta AS SELECT * FROM base",
            IS_A_VIEW,
        ),
    ),
    "cartao": (
        NOTHING,
        Event("cluster", "CLUSTER cartao USING cartao_pkey"),
        Event(
            "a generated expression changes",
            "ALTER TABLE cartao ALTER dobro SET EXPRESSION AS (id * 3)",
            OTHER_COLUMNS,
        ),
        Event("a column comes with a default", "ALTER TABLE cartao ADD cidade text DEFAULT 'Recife'", OTHER_COLUMNS),
        Event(
            "a column goes and comes",
            "ALTER TABLE cartao DROP nom_impresso; ALTER TABLE cartao ADD nom_impresso text DEFAULT 'BIA'",
            OTHER_COLUMNS,
        ),
        Event(
            "columns are swapped by rename",
            "ALTER TABLE cartao RENAME nom_impresso TO x; ALTER TABLE cartao RENAME cidade TO nom_impresso;"
            "ALTER TABLE cartao RENAME x TO cidade",
            OTHER_COLUMNS,
        ),
        Event("a row changes after that", "UPDATE cartao SET cidade = 'x' WHERE id = 2", "0 written, 1 updated, 0 deleted"),
        Event(
            "the key becomes another constraint",
            "ALTER TABLE cartao DROP CONSTRAINT cartao_pkey, ADD UNIQUE (id), ALTER id SET NOT NULL;"
            "UPDATE cartao SET nom_impresso = 'u' WHERE id = 2",
            "0 written, 1 updated, 0 deleted",
        ),
        Event("vacuum, freeze", "VACUUM FREEZE cartao"),
        Event(
            "the key goes",
            "ALTER TABLE cartao DROP CONSTRAINT cartao_id_key;"
            "INSERT INTO cartao (id, num_cartao) SELECT id, num_cartao FROM cartao WHERE id < 3",
            NO_KEY,
        ),
    ),
    "movimento": (
        NOTHING,
        Event("a row moves between partitions", "UPDATE movimento SET id = 195 WHERE id = 50", "1 written, 0 updated, 1 deleted"),
        Event(
            "a partition is swapped for one of as many rows",
            "ALTER TABLE movimento DETACH PARTITION m2;"
            "INSERT INTO m3 SELECT id, 9, 'y', data_movimento, 2 FROM m2;"
            "ALTER TABLE movimento ATTACH PARTITION m3 FOR VALUES FROM (100) TO (200)",
            ANOTHER_TABLE,
        ),
        Event("a row changes after that", "UPDATE movimento SET des_transacao = 'z' WHERE id = 150", "0 written, 1 updated, 0 deleted"),
        Event(
            "a partition is attached",
            "ALTER TABLE movimento ATTACH PARTITION m4 FOR VALUES FROM (200) TO (300)",
            ANOTHER_TABLE,
        ),
        Event("a partition is detached", "ALTER TABLE movimento DETACH PARTITION m3", ANOTHER_TABLE),
        Event("vacuum of the whole database", "VACUUM FREEZE"),
        NOTHING,
        Event("a row comes", "INSERT INTO movimento VALUES (299, 1, 'x', '2024-01-01', 1)", "1 written, 0 updated, 0 deleted"),
        NOTHING,
    ),
}  # fmt: skip


def test_after_any_event_bronze_has_what_a_full_load_has(source: Lake) -> None:
    """In each night something else happens to each table; the night after it is the next one's."""
    for events in zip(*EVENTS.values(), strict=True):
        versions = {table.name: table.version for table in last(source).tables}
        for event in events:
            # VACUUM and CLUSTER want no transaction; BEGIN and COMMIT are in the words.
            execute(source.address, *(event.sql.split(";") if "BEGIN" not in event.sql else [event.sql]))
        source.run("bronze")
        names = dict(zip(EVENTS, (event.name for event in events), strict=True))
        expected = dict(zip(EVENTS, (event.how for event in events), strict=True))
        assert how(source) == expected, names
        changed = {table.name for table in last(source).tables if table.version != versions[table.name]}
        assert changed == {name for name, mode in expected.items() if mode != "unchanged"}, names
        as_a_full_load(source)
    execute(
        source.address, "UPDATE base SET data_criacao = '2022-02-02'; UPDATE movimento SET id_cartao = 3 WHERE id = 7"
    )
    source.run("bronze")
    assert how(source) == {
        "associado": NO_KEY, "conta": IS_A_VIEW, "cartao": NO_KEY, "movimento": "0 written, 1 updated, 0 deleted"
    }  # fmt: skip
    as_a_full_load(source)


def test_a_transaction_that_commits_later_with_lower_ids_is_not_lost(source: Lake) -> None:
    insert = "INSERT INTO movimento VALUES (%s, 1, 'x', '2024-01-01', 1)"
    execute(source.address, "DELETE FROM movimento WHERE id IN (3, 4)")
    with connected(source.address) as late, late.cursor() as cursor:
        late.autocommit = False
        cursor.execute("SAVEPOINT s")
        cursor.execute(insert, (3,))
        execute(source.address, insert % 199)
        source.run("bronze")
        as_a_full_load(source)
        execute(source.address, "UPDATE movimento SET des_transacao = 'y' WHERE id = 190")
        source.run("bronze")
        cursor.execute(insert, (4,))
        late.commit()
    source.run("bronze")
    assert how(source)["movimento"] == "2 written, 0 updated, 0 deleted"
    as_a_full_load(source)
    source.run("bronze")
    assert set(how(source).values()) == {"unchanged"}


def test_full_and_tables_build_whole_what_they_name_under_the_same_snapshot(source: Lake) -> None:
    execute(source.address, "UPDATE associado SET nome = 'x' WHERE id = 1")
    source.run("bronze", full="movimento")
    assert how(source) == {
        "associado": "0 written, 1 updated, 0 deleted",
        "conta": "unchanged",
        "cartao": "unchanged",
        "movimento": "full: asked for",
    }
    as_a_full_load(source)


def test_each_table_is_loaded_in_full_once_in_a_while_and_never_a_night_late(source: Lake) -> None:
    settings, table_run = source.settings(FULL_DAYS="3"), last(source).table("conta")
    assert table_run.full_at is not None

    def why(hours: float) -> str:
        assert table_run.full_at is not None
        return reason_for_full(settings, table_run, False, table_run.full_at + timedelta(hours=hours))

    assert [bool(why(hours)) for hours in (0, 59, 61, 999, -1)] == [False, False, True, True, True]
    assert why(72) == "LAKEHOUSE_FULL_DAYS=3 have passed"


def test_a_table_whose_count_differs_from_the_sources_is_loaded_in_full_and_reported(
    source: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if a change could hide from `xmin`: the rows found are not all."""
    monkeypatch.setattr(fingerprint, "newer_than", lambda _: "id = -1")
    for statement, reason in (
        (
            "UPDATE movimento SET vlr_transacao = 2 WHERE id = 1",
            "its rows or sums are not those that what changed makes",
        ),
        ("INSERT INTO movimento VALUES (0, 2, 'x', '2024-01-01', 1)", "the source has rows that nobody wrote since"),
        (
            "DELETE FROM movimento WHERE id IN (5, 6); INSERT INTO movimento VALUES (199, 1, 'x', '2024-01-01', 1)",
            "other rows were deleted than its rows and keys say",
        ),
    ):
        execute(source.address, statement)
        source.run("bronze")
        assert how(source)["movimento"].startswith(f"full: {reason}")
        assert f"bronze.movimento: {reason}" in capsys.readouterr().err
        as_a_full_load(source)


def test_zeros_of_both_signs_odd_names_and_wide_numbers_survive_many_nights_and_maintain(
    source: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a source brings along is written again by another engine than the one that read it."""
    execute(
        source.address,
        """ALTER TABLE associado ADD filename text DEFAULT 'f', ADD _file int, ADD peso double precision DEFAULT 0,
        ADD taxa real DEFAULT 0, ADD "a""{b} c" numeric(38,10) DEFAULT 1, ADD quando timestamptz DEFAULT '2018-11-04 02:30+00',
        ADD foto bytea DEFAULT 'x', ADD v0 int, ADD _here bool, ADD last text, ADD "MAIÚSC" uuid DEFAULT gen_random_uuid()""",
    )
    source.run("bronze")
    for night in range(4):
        execute(
            source.address,
            f"UPDATE associado SET peso = '-0', taxa = CASE WHEN id % 2 = 0 THEN '-0'::real ELSE 'NaN' END WHERE id % 4 = {night}",
            "UPDATE associado SET nome = nome WHERE id > 20",  # written, not changed
            f"UPDATE associado SET foto = '\\x0{night}', filename = 'g{night}' WHERE id = {night + 9}",
            f"UPDATE movimento SET des_transacao = 'n{night}' WHERE id = {night + 1}",
            f"DELETE FROM movimento WHERE id = {20 + night}",
            f"INSERT INTO associado (id) VALUES ({100 + night})",
        )
        source.run("bronze")
        assert how(source)["associado"].startswith("1 written") and how(source)["associado"].endswith(", 0 deleted")
        assert how(source)["movimento"] == "0 written, 1 updated, 1 deleted"
        as_a_full_load(source)
    members = table_version(source.settings().bronze_path, last(source), catalogue.tables_of("bronze", "cartoes")[0])
    rows = read(source.spark, members).select("id", 'a"{b} c').distinct().count()
    assert rows == last(source).table("associado").rows_out and len(members.files) == 5
    monkeypatch.setattr("pipelines.lake.layout.MANY_SMALL_FILES", 2)
    with Report() as report:
        maintain(source.settings(), report)
    assert "lost" not in capsys.readouterr().out and last(source).kind == "compaction"
    members = table_version(source.settings().bronze_path, last(source), catalogue.tables_of("bronze", "cartoes")[0])
    assert len(members.files) == 1
    as_a_full_load(source)
    execute(source.address, "UPDATE associado SET peso = 0 WHERE id = 2")
    source.run("bronze")
    assert how(source)["associado"] == "0 written, 1 updated, 0 deleted"
    as_a_full_load(source)


def test_a_change_of_this_software_or_its_pins_asks_for_a_full_load(
    source: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "software", lambda domain: f"another of {domain}")
    source.run("bronze")
    assert set(how(source).values()) == {"full: this software changed"}


def test_a_user_who_may_not_identify_the_server_loads_in_full(source: Lake) -> None:
    execute(source.address, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
            "CREATE ROLE leitor LOGIN", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO leitor")  # fmt: skip
    try:
        reader = replace(source, address=source.address.model_copy(update={"user": "leitor"}))
        reader.run("bronze")
        assert set(how(source).values()) == {
            "full: this user may not ask which server it is (EXECUTE on pg_control_system, pg_control_checkpoint)"
        }
    finally:
        execute(source.address, "DROP OWNED BY leitor", "DROP ROLE leitor")
        execute(source.address, "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for servers of which one may follow another."""
    for name, value in {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}.items():
        monkeypatch.setitem(embedded.OPTIONS, name, value)
    with server_home() as folder:
        folder.chmod(0o755)
        yield folder


@contextmanager
def standby(primary: Postgres, folder: Path) -> Iterator[Postgres]:
    """A server that follows `primary`."""
    embedded._own(folder)
    programs = embedded._programs(folder)
    backup: list[str | Path] = [
        programs / "pg_basebackup",
        "-h",
        primary.host,
        "-U",
        primary.user,
        "-D",
        folder / "data",
        "-R",
        "-c",
        "fast",
    ]
    embedded._run(backup)
    with embedded.server(folder) as address:
        yield address


def test_a_standby_that_lags_or_takes_over_hides_no_change(servers: Path, tmp_path: Path, spark: SparkSession) -> None:
    with embedded.server(servers / "a") as primary:
        execute(primary, *SOURCE)
        with standby(primary, servers / "b") as other:
            lake = Lake(tmp_path, primary, spark)
            lake.run("bronze")
            execute(other, "SELECT pg_wal_replay_pause()")
            execute(primary, "UPDATE associado SET nome = 'only on the primary' WHERE id < 4")
            lake.run("bronze")
            lagging = replace(lake, address=other)
            lagging.run("bronze")
            assert "nome" in query(other, "SELECT 'nome' FROM associado WHERE nome = 'Ana'")[0]
            assert set(how(lake).values()) == {"full: the source is older than when it was read last"}
            as_a_full_load(lagging)
            execute(other, "SELECT pg_wal_replay_resume()", "SELECT pg_promote()")
            for at in range(9):
                execute(other, f"INSERT INTO associado VALUES ({100 + at}, 'on the new primary')")
            lagging.run("bronze")
            assert set(how(lake).values()) == {"full: the server was restored, or another one took over"}
            as_a_full_load(lagging)


def test_a_data_folder_that_was_copied_back_hides_no_change(servers: Path, tmp_path: Path, spark: SparkSession) -> None:
    folder = servers / "a"
    with embedded.server(folder) as server:
        execute(server, *SOURCE)
    shutil.copytree(folder / "data", servers / "copy")
    with embedded.server(folder) as server:
        lake = Lake(tmp_path, server, spark)
        execute(server, "UPDATE associado SET nome = 'lost' WHERE id = 1")
        lake.run("bronze")
    shutil.rmtree(folder / "data")
    shutil.copytree(servers / "copy", folder / "data")
    for path in (folder / "data", *(folder / "data").rglob("*")):
        os.chown(path, embedded._owner(), -1, follow_symlinks=False)
    with embedded.server(folder) as server:
        # As many transactions as before, and more.
        for at in range(9):
            execute(server, f"UPDATE conta SET data_criacao = '2022-01-0{at + 1}' WHERE id = {at}")
        lake.run("bronze")
        assert set(how(lake).values()) == {"full: the server was started anew, and may be a copy of before"}
        as_a_full_load(lake)


def test_a_table_with_the_column_of_change_data_files_is_loaded_in_full(
    source: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(source.address, """ALTER TABLE conta ADD COLUMN "_Change_Type" text DEFAULT 'insert'""")
    source.run("bronze")
    execute(source.address, """UPDATE conta SET "_Change_Type" = 'delete' WHERE id = 1""")
    capsys.readouterr()
    source.run("bronze")
    assert source.last("bronze").table("conta").how == "full: change data files have a column _change_type, too"
    assert "warning" not in capsys.readouterr().err
