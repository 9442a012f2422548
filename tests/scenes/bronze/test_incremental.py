"""Bronze follows its source by what changed, and has what a full load would have, whatever happened at the source."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.bronze import incremental as bronze_incremental
from pipelines.commands.maintain import maintain
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.lake import delta, run_log
from pipelines.lake.changes import TECHNICAL
from pipelines.lake.engine import count, engine, listed
from pipelines.lake.runs import Run, reason_for_full
from pipelines.lake.versions import table_version
from pipelines.sources.postgres import embedded, fingerprint
from tests.support.lake import Lake
from tests.support.source import connected, execute, query

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
    "INSERT INTO associado SELECT i, 'Ana', 'Lima', 30, 'a@b.c' FROM generate_series(1, 30) i",
    "INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i, ROW('a', i)::lugar FROM generate_series(1, 30) i",
    "INSERT INTO cartao SELECT i, '4111111111111111', 'ANA', '2020-01-01', i, i FROM generate_series(1, 30) i",
    "INSERT INTO movimento SELECT i, 1.25, 'x', '2024-01-01', i % 30 + 1 FROM generate_series(1, 190) i",
    "INSERT INTO m3 SELECT i, 1.25, 'x', '2024-01-01', 1 FROM generate_series(200, 205) i",
)


@pytest.fixture
def source(lakehouse: Lake) -> Lake:
    """A lake whose bronze has followed its source once."""
    execute(lakehouse.address, *SOURCE)
    lakehouse.run("bronze")
    return lakehouse


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


# What happens, and what becomes of each table that does not stay as it is.
EVENTS = {
    "rows come, go and change": (
        "INSERT INTO associado VALUES (31, 'Novo', NULL, NULL, NULL); DELETE FROM associado WHERE id IN (4, 5);"
        "UPDATE associado SET nome = 'Eva' WHERE id = 6",
        {"associado": "2 written, 2 deleted"},
    ),
    "a key changes": ("UPDATE associado SET id = 99 WHERE id = 7", {"associado": "1 written, 1 deleted"}),
    "a row goes and comes back": (
        "DELETE FROM associado WHERE id = 7; INSERT INTO associado VALUES (7, 'Outra', 'Lima', 30, 'a@b.c')",
        {"associado": "1 written, 0 deleted"},
    ),
    "a row is written as it was": ("UPDATE associado SET nome = nome", {}),
    "a savepoint is rolled back": (
        "BEGIN; INSERT INTO associado VALUES (31, 'a'); SAVEPOINT s; INSERT INTO associado VALUES (32, 'b');"
        "UPDATE associado SET nome = 'x' WHERE id < 5; ROLLBACK TO s; SAVEPOINT t; INSERT INTO associado VALUES (33, 'c');"
        "RELEASE t; COMMIT",
        {"associado": "2 written, 0 deleted"},
    ),
    "a transaction is rolled back": ("BEGIN; DELETE FROM associado; ROLLBACK", {}),
    "a table is emptied": ("TRUNCATE associado", {"associado": "0 written, 30 deleted"}),
    "a table is emptied and filled": (
        "TRUNCATE associado; INSERT INTO associado SELECT i, 'Ana', 'Lima', 30, 'a@b.c' FROM generate_series(10, 40) i",
        {"associado": "10 written, 9 deleted"},
    ),
    "vacuum, freeze": ("VACUUM FREEZE", {}),
    "vacuum full": ("VACUUM FULL", {}),
    "cluster": ("CLUSTER associado USING associado_pkey", {}),
    "a rewrite of the same rows": ("ALTER TABLE associado SET UNLOGGED", {}),
    "a row moves between partitions": (
        "UPDATE movimento SET id = 195 WHERE id = 50",
        {"movimento": "1 written, 1 deleted"},
    ),
    "a partition is attached": (
        "ALTER TABLE movimento ATTACH PARTITION m3 FOR VALUES FROM (200) TO (300)",
        {"movimento": "full: another table has its name, or its partitions changed"},
    ),
    "a partition is detached": (
        "ALTER TABLE movimento DETACH PARTITION m2",
        {"movimento": "full: another table has its name, or its partitions changed"},
    ),
    "a partition is swapped for one of as many rows": (
        "ALTER TABLE movimento DETACH PARTITION m2; DELETE FROM m3; ALTER TABLE m3 ALTER id SET NOT NULL;"
        "INSERT INTO m3 SELECT id, 9, 'y', data_movimento, 2 FROM m2;"
        "ALTER TABLE movimento ATTACH PARTITION m3 FOR VALUES FROM (100) TO (200)",
        {"movimento": "full: another table has its name, or its partitions changed"},
    ),
    "tables are swapped by rename": (
        "CREATE TABLE nova (LIKE associado INCLUDING ALL); INSERT INTO nova SELECT id, 'Swap', 'p', 1, 'e' FROM associado;"
        "ALTER TABLE associado RENAME TO velha; ALTER TABLE nova RENAME TO associado",
        {"associado": "full: another table has its name, or its partitions changed"},
    ),
    "tables swapped by rename, the other one older than the last run": (
        "ALTER TABLE associado RENAME TO a; ALTER TABLE velha RENAME TO associado",
        {"associado": "full: another table has its name, or its partitions changed"},
    ),
    "a label is renamed": (
        "ALTER TYPE tipo RENAME VALUE 'corrente' TO 'Corrente'",
        {"conta": "full: the type of a column changed: labels, members"},
    ),
    "a composite type gets a member": (
        "ALTER TYPE lugar ADD ATTRIBUTE cep text",
        {"conta": "full: the type of a column changed: labels, members"},
    ),
    "a column comes with a default": (
        "ALTER TABLE associado ADD cidade text DEFAULT 'Recife'",
        {"associado": "full: its columns or their defaults changed"},
    ),
    "a column goes and comes": (
        "ALTER TABLE associado DROP email; ALTER TABLE associado ADD email text DEFAULT 'novo@b.c'",
        {"associado": "full: its columns or their defaults changed"},
    ),
    "columns are swapped by rename": (
        "ALTER TABLE associado RENAME nome TO x; ALTER TABLE associado RENAME sobrenome TO nome;"
        "ALTER TABLE associado RENAME x TO sobrenome",
        {"associado": "full: its columns or their defaults changed"},
    ),
    "a generated expression changes": (
        "ALTER TABLE cartao ALTER dobro SET EXPRESSION AS (id * 3)",
        {"cartao": "full: its columns or their defaults changed"},
    ),
    "the key goes": (
        "ALTER TABLE associado DROP CONSTRAINT associado_pkey; INSERT INTO associado SELECT * FROM associado WHERE id < 3",
        {"associado": "full: the source has no unique, not null key id"},
    ),
    "the key becomes another constraint": (
        "ALTER TABLE associado DROP CONSTRAINT associado_pkey, ADD UNIQUE (id), ALTER id SET NOT NULL;"
        "UPDATE associado SET nome = 'u' WHERE id = 2",
        {"associado": "1 written, 0 deleted"},
    ),
    "the table becomes a view": (
        "ALTER TABLE associado RENAME TO base; CREATE VIEW associado AS SELECT * FROM base",
        {"associado": "full: it is a view, or another kind of table than PostgreSQL's own"},
    ),
    "others inherit from the table": (
        "CREATE TABLE filha () INHERITS (associado); INSERT INTO filha SELECT * FROM ONLY associado WHERE id = 3",
        {"associado": "full: the source has no unique, not null key id"},
    ),
    "nothing": ("SELECT 1", {}),
}


@pytest.mark.parametrize("event", EVENTS)
def test_after_any_event_bronze_has_what_a_full_load_has(source: Lake, event: str) -> None:
    statements, expected = EVENTS[event]
    if "older than the last run" in event:
        execute(source.address, "CREATE TABLE velha (LIKE associado INCLUDING ALL)", "INSERT INTO velha SELECT id, 'v', 'v', 1, 'v' FROM associado")  # fmt: skip
        source.run("bronze")
    versions = {table.name: table.version for table in last(source).tables}
    # VACUUM and CLUSTER want no transaction; BEGIN and COMMIT are in the words.
    for statement in statements.split(";") if "BEGIN" not in statements else [statements]:
        execute(source.address, statement)
    source.run("bronze")
    changed = {name: mode for name, mode in how(source).items() if mode != "unchanged"}
    assert changed == expected
    assert {table.name for table in last(source).tables if table.version != versions[table.name]} == expected.keys()
    as_a_full_load(source)
    execute(source.address, "UPDATE cartao SET nom_impresso = 'again' WHERE id = 2")
    source.run("bronze")
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
    assert how(source)["movimento"] == "2 written, 0 deleted"
    as_a_full_load(source)
    source.run("bronze")
    assert set(how(source).values()) == {"unchanged"}


def test_many_batches_are_folded_into_one_snapshot(source: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bronze_incremental, "FOLD_BATCHES", 4)
    monkeypatch.setattr(bronze_incremental, "FOLD_SHARE", 9)
    seen = []
    for night in range(7):
        execute(
            source.address,
            f"UPDATE associado SET nome = 'n{night}' WHERE id = {night + 1}",
            f"DELETE FROM associado WHERE id = {20 + night}",
        )
        source.run("bronze")
        seen.append(last(source).table("associado").batches)
        as_a_full_load(source)
    assert max(seen) == 4 and min(seen[4:]) == 1
    path = source.settings().bronze_path / "cartoes/associado"
    assert len(delta.actions(path, last(source).table("associado").version)) < 10


def test_full_and_tables_build_whole_what_they_name_under_the_same_snapshot(source: Lake) -> None:
    execute(source.address, "UPDATE associado SET nome = 'x' WHERE id = 1")
    source.run("bronze", full="movimento")
    assert how(source) == {
        "associado": "1 written, 0 deleted",
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


def test_zeros_of_both_signs_odd_names_and_wide_numbers_survive_batches_folds_and_maintain(
    source: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a source brings along is written again by another engine than the one that read it."""
    monkeypatch.setattr(bronze_incremental, "FOLD_BATCHES", 2)
    execute(
        source.address,
        """ALTER TABLE associado ADD filename text DEFAULT 'f', ADD _file int, ADD peso double precision DEFAULT 0,
        ADD taxa real DEFAULT 0, ADD "a""b c" numeric(38,10) DEFAULT 1, ADD quando timestamptz DEFAULT '2018-11-04 02:30+00',
        ADD foto bytea DEFAULT 'x', ADD v0 int, ADD _here bool, ADD last text, ADD "MAIÚSC" uuid DEFAULT gen_random_uuid()""",
    )
    source.run("bronze")
    for night in range(4):
        execute(
            source.address,
            f"UPDATE associado SET peso = '-0', taxa = CASE WHEN id % 2 = 0 THEN '-0'::real ELSE 'NaN' END WHERE id % 4 = {night}",
            "UPDATE associado SET nome = nome WHERE id > 20",  # written, not changed: the batch is written again
            f"UPDATE associado SET foto = '\\x0{night}', filename = 'g{night}' WHERE id = {night + 9}",
        )
        source.run("bronze")
        assert how(source)["associado"].endswith("written, 0 deleted"), how(source)
        as_a_full_load(source)
    assert last(source).table("associado").batches < 4
    monkeypatch.setattr("pipelines.commands.maintain.MANY_SMALL_FILES", 1)
    with Report() as report:
        maintain(source.settings(), report)
    assert "other values" not in capsys.readouterr().out
    assert last(source).kind == "compaction" and last(source).table("associado").batches == 0
    as_a_full_load(source)
    execute(source.address, "UPDATE associado SET peso = 0 WHERE id = 2")
    source.run("bronze")
    assert how(source)["associado"] == "1 written, 0 deleted"
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
    folder = Path(tempfile.mkdtemp(prefix="lakehouse-test-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


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
    embedded._hand_over(folder / "data")
    with embedded.server(folder) as server:
        # As many transactions as before, and more.
        for at in range(9):
            execute(server, f"UPDATE conta SET data_criacao = '2022-01-0{at + 1}' WHERE id = {at}")
        lake.run("bronze")
        assert set(how(lake).values()) == {"full: the server was started anew, and may be a copy of before"}
        as_a_full_load(lake)
