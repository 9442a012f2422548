"""A source that fails: what can pass is tried again, the rest ends at once; never two moments in one bronze."""

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.core.errors import SourceFault, TransientFault
from pipelines.lake import delta, run_log
from pipelines.sources.postgres import connection as postgres_connection
from pipelines.sources.postgres import embedded, reader, snapshot, transaction
from tests.support.folders import server_home
from tests.support.lake import Lake
from tests.support.process import Cli, connection_settings
from tests.support.proxy import Link, Proxy, once, slow
from tests.support.source import KEYED, NASTY, TABLES, connected, execute, fresh_database, query

MANY = """INSERT INTO movimento SELECT 1000 + i, 1, repeat('x', 50), '2024-01-01', 1 FROM generate_series(1, 60000) i"""
# One transaction that touches every table: of two moments, rows would be without their parents, or parents without rows.
NIGHT = """INSERT INTO associado VALUES (50, 'n', 'n', 1, 'n'); INSERT INTO conta VALUES (50, 'corrente', NULL, 50);
    INSERT INTO cartao VALUES (50, '1', 'n', NULL, 50, 50); INSERT INTO movimento VALUES (50, 1, 'n', '2024-01-01', 50)"""
NAMES = ("associado", "conta", "cartao", "movimento")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same time-outs, shorter."""
    monkeypatch.setattr(postgres_connection, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(postgres_connection, "ANSWER_SECONDS", 2)
    monkeypatch.setitem(transaction.PINNED, "lock_timeout", "1s")
    monkeypatch.setitem(transaction.PROVED, "lock_timeout", "1s")
    monkeypatch.setattr(reader, "SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(snapshot, "LONGEST_PAUSE", 0.2)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs for a run that is to end by one: an idle machine answers sooner, a busy one only ends it earlier."""
    monkeypatch.setattr(postgres_connection, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(postgres_connection, "ANSWER_SECONDS", 1)


@pytest.fixture(scope="module")
def database(server: Postgres) -> Iterator[Postgres]:
    """Many rows, filled once; each night more of it is one more row in each table."""
    with fresh_database(server) as address:
        execute(address, *TABLES, *NASTY, MANY)
        yield address


@pytest.fixture
def proxy(database: Postgres) -> Iterator[Proxy]:
    with Proxy(database) as proxy:
        yield proxy


@pytest.fixture
def lakehouse(tmp_path: Path, proxy: Proxy, spark: SparkSession) -> Lake:
    """A lake whose source is behind the proxy."""
    return Lake(tmp_path, proxy.address, spark)


def has_the_source_of_one_moment(lakehouse: Lake, database: Postgres) -> None:
    """Bronze is what the source has now, in every table, and no file is left over."""
    settings = lakehouse.settings()
    run = run_log.last_run(settings.bronze_path, "cartoes")
    assert run is not None
    for name in NAMES:
        assert [(run.table(name).rows_out,)] == query(database, f"SELECT count(*) FROM {name}")
        path = settings.bronze_path / "cartoes" / name
        assert {str(file) for file in path.glob("*.parquet")} == set(delta.file_paths(path, run.table(name).version))


def reset(link: Link) -> None:
    link.reset()


def test_a_source_that_comes_back_within_the_time_is_read(
    lakehouse: Lake, proxy: Proxy, database: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    opened: list[Proxy] = []
    timer = threading.Timer(0.5, lambda: opened.append(Proxy(database, port)))
    timer.start()
    lakehouse.address = proxy.address.model_copy(update={"port": port})
    lakehouse.run("bronze", RETRY_SECONDS="20")
    opened[0].__exit__()
    assert "onnection refused" in (output := capsys.readouterr().err) and "; trying again in" in output
    has_the_source_of_one_moment(lakehouse, database)


def test_a_source_that_stays_away_is_exit_three_after_the_time_with_what_was_tried(
    cli: Cli, database: Postgres
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gone = connection_settings(database) | {
        "LAKEHOUSE_POSTGRES__HOST": "127.0.0.1",
        "LAKEHOUSE_POSTGRES__PORT": str(port),
    }
    result = cli("bronze", env=gone | {"LAKEHOUSE_RETRY_SECONDS": "1"})
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 3 and last.startswith("source: PostgreSQL 127.0.0.1") and "Connection refused" in last
    assert re.search(r"; tried \d+ times in \d+ s, ", last) and last.endswith("run it again when the source is back")
    result = cli("bronze", env=gone | {"LAKEHOUSE_RETRY_SECONDS": "0"})
    assert result.returncode == 3 and result.stderr.count("\n") == 1


@pytest.mark.usefixtures("hasty")
def test_a_server_that_accepts_and_never_answers_ends_the_run(lakehouse: Lake, proxy: Proxy) -> None:
    proxy.answers = False
    with pytest.raises(TransientFault, match="timeout expired"):
        lakehouse.run("bronze", RETRY_SECONDS="0")


@pytest.mark.parametrize("after", [200, 20_000, 1_000_000])
def test_a_connection_that_is_reset_is_tried_again_with_a_new_snapshot(
    after: int, lakehouse: Lake, proxy: Proxy, database: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    def happens(link: Link) -> None:
        execute(database, NIGHT)
        link.reset()

    proxy.fault = once(after, happens)
    lakehouse.run("bronze")
    assert capsys.readouterr().err.count("trying again") == 1
    has_the_source_of_one_moment(lakehouse, database)


def test_a_source_that_always_resets_ends_the_run_and_leaves_no_file(
    lakehouse: Lake, proxy: Proxy, database: Postgres
) -> None:
    lakehouse.run("bronze")
    execute(database, NIGHT)
    before = {path for path in lakehouse.folder.rglob("*") if path.is_file()}
    proxy.fault = lambda link: link.reset() if link.sent > 100_000 else None
    with pytest.raises(TransientFault, match=r"reading public.\w+ from .*; tried \d times in \d s"):
        lakehouse.run("bronze", RETRY_SECONDS="1")
    assert {path for path in lakehouse.folder.rglob("*") if path.is_file()} == before


def test_a_connection_that_stalls_is_noticed_and_tried_again(
    lakehouse: Lake, proxy: Proxy, database: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    def happens(link: Link) -> None:
        execute(database, NIGHT)
        proxy.stall(link)

    proxy.fault = once(200_000, happens)
    lakehouse.run("bronze")
    assert capsys.readouterr().err.count("trying again") == 1
    has_the_source_of_one_moment(lakehouse, database)


@pytest.mark.usefixtures("hasty")
def test_a_network_that_stalls_for_good_ends_the_run(lakehouse: Lake, proxy: Proxy) -> None:
    def stall(link: Link) -> None:
        proxy.answers = False  # new connections get no answer either
        proxy.stall(link)

    proxy.fault = lambda link: stall(link) if link.sent > 100_000 or not proxy.answers else None
    with pytest.raises(TransientFault):
        lakehouse.run("bronze", RETRY_SECONDS="0")


def test_a_slow_source_is_waited_for(
    lakehouse: Lake, server: Postgres, database: Postgres, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both kinds: rows that trickle, and a query that thinks for longer than the silence."""
    with fresh_database(server, database.database) as slow_database, Proxy(slow_database) as proxy:
        execute(
            slow_database,
            "ALTER TABLE conta RENAME TO contas",
            "CREATE VIEW conta AS SELECT c.* FROM contas c, (SELECT pg_sleep(1.5)) s",
        )
        proxy.fault = slow
        lakehouse.address = proxy.address
        lakehouse.run("bronze", RETRY_SECONDS="0")
        assert "trying again" not in capsys.readouterr().err
        has_the_source_of_one_moment(lakehouse, slow_database)


OURS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'lakehouse %' AND datname = current_database()"


@pytest.mark.parametrize(
    "whom",
    [OURS, f"{OURS} AND state = 'active'", f"{OURS} AND state = 'idle in transaction'"],
    ids=["all", "readers", "guard and holder of the snapshot"],
)
def test_a_run_whose_backends_are_terminated_is_tried_again(
    whom: str,
    lakehouse: Lake,
    database: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    true, happened = reader.shaped, threading.Lock()

    def shaped(*arguments):  # type: ignore[no-untyped-def]
        if happened.acquire(blocking=False):
            execute(database, NIGHT, f"SELECT pg_terminate_backend(pid) FROM ({whom}) ours")
        return true(*arguments)

    monkeypatch.setattr(reader, "shaped", shaped)
    lakehouse.run("bronze")
    assert capsys.readouterr().err.count("trying again") == 1
    has_the_source_of_one_moment(lakehouse, database)


def test_a_briefly_locked_table_is_waited_for_and_a_permanently_locked_one_is_named(
    lakehouse: Lake, database: Postgres
) -> None:
    with connected(database) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE cartao IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TransientFault, match="lock timeout"):
            lakehouse.run("bronze", RETRY_SECONDS="0")
        threading.Timer(0.5, lambda: cursor.execute("ROLLBACK")).start()
        lakehouse.run("bronze", RETRY_SECONDS="20")
    has_the_source_of_one_moment(lakehouse, database)


def test_a_server_with_too_many_connections_is_tried_again_and_reported(lakehouse: Lake, database: Postgres) -> None:
    role = f"poucos_{database.database}"
    execute(
        database, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 2; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    lakehouse.address = lakehouse.address.model_copy(update={"user": role})
    try:
        with pytest.raises(TransientFault, match=f'too many connections for role "{role}"'):
            lakehouse.run("bronze", RETRY_SECONDS="0")
        threading.Timer(0.5, lambda: execute(database, f"ALTER ROLE {role} CONNECTION LIMIT 20")).start()
        lakehouse.run("bronze", RETRY_SECONDS="20")
    finally:
        execute(database, f"DROP OWNED BY {role}; DROP ROLE {role}")
    has_the_source_of_one_moment(lakehouse, database)


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for localhost, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here to make a certificate")
    file = folder / f"{name}.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={name}",
    ]
    command += ["-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, "-keyout", file, "-out", folder / "crt"], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (folder / "crt").read_bytes())
    return file


@pytest.mark.parametrize(
    ("named", "trusted", "message"),
    [
        ("", "", "server does not support SSL, but SSL was required"),
        ("localhost", "other", "certificate verify failed"),
        (
            "elsewhere.example",
            "elsewhere.example",
            'server certificate does not match host name "localhost"',
        ),
        ("localhost", "missing", "root certificate file .* does not exist"),
    ],
    ids=["no TLS", "another authority", "another host", "no root certificate"],
)
def test_tls_that_the_server_lacks_or_a_wrong_certificate_ends_at_once(
    named: str,
    trusted: str,
    message: str,
    lakehouse: Lake,
    proxy: Proxy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more: dict[str, str] = {"sslmode": "verify-full" if named else "require", "host": "localhost"}
    if named:
        proxy.certificate = certificate(tmp_path, named)
        root = tmp_path / f"{trusted}.pem" if trusted in (named, "missing") else certificate(tmp_path, trusted)
        more["sslrootcert"] = str(root)
    lakehouse.address = proxy.address.model_copy(update=more)
    with pytest.raises(SourceFault, match=message):
        lakehouse.run("bronze")
    assert "trying again" not in capsys.readouterr().err


def test_tls_with_the_right_certificate_is_used(
    lakehouse: Lake, proxy: Proxy, database: Postgres, tmp_path: Path
) -> None:
    proxy.certificate = certificate(tmp_path, "localhost")
    more = {"host": "localhost", "sslmode": "verify-full", "sslrootcert": str(proxy.certificate)}
    lakehouse.address = proxy.address.model_copy(update=more)
    lakehouse.run("bronze")
    has_the_source_of_one_moment(lakehouse, database)


@pytest.mark.parametrize("given", ["", "prefer", "disable", "tls", "loopback"])
def test_a_connection_in_clear_beyond_this_machine_is_warned_of_once_a_run(
    given: str, lakehouse: Lake, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"sslmode": given} if given in ("prefer", "disable") else {}
    if given == "tls":
        proxy.certificate = certificate(tmp_path, "localhost")
        more = {"sslmode": "require"}
    lakehouse.address = proxy.address.model_copy(update=more)
    if given != "loopback":
        monkeypatch.setattr(postgres_connection, "ip_address", lambda _: ip_address("192.0.2.1"))
    lakehouse.run("bronze")
    warnings = [text for text in lakehouse.last("bronze").warnings if "is not encrypted" in text]
    assert len(warnings) == (given in ("", "prefer"))
    assert all("set LAKEHOUSE_POSTGRES__SSLMODE=verify-full" in text for text in warnings)


REPLICA = {"wal_level": "replica"}


@pytest.fixture(scope="module")
def own_folder() -> Iterator[Path]:
    """The folder of a server of our own, with the tables filled, that can be started as something else."""
    with server_home() as folder:
        with embedded.server(folder, REPLICA) as address:
            execute(address, *TABLES, *NASTY)
        yield folder


def test_a_server_that_crashes_and_recovers_is_read_again(
    own_folder: Path,
    tmp_path: Path,
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    true, happened = reader.shaped, threading.Lock()
    with embedded.server(own_folder, REPLICA) as address:

        def shaped(*arguments):  # type: ignore[no-untyped-def]
            if happened.acquire(blocking=False):
                execute(address, NIGHT)
                ((victim,), *_) = query(address, f"{OURS} AND pid <> pg_backend_pid()")
                psutil.Process(victim).kill()
            return true(*arguments)

        monkeypatch.setattr(reader, "shaped", shaped)
        lakehouse = Lake(tmp_path, address, spark)
        lakehouse.run("bronze", RETRY_SECONDS="30")
        assert "trying again" in capsys.readouterr().err
        has_the_source_of_one_moment(lakehouse, address)


LAZY = {"synchronous_commit": "off", "wal_writer_delay": "3s", "bgwriter_delay": "10s", "fsync": "on"}


@pytest.mark.long
def test_a_commit_that_did_not_wait_for_the_disk_is_there_before_it_is_read(
    tmp_path: Path, spark: SparkSession
) -> None:
    """Else a crash of one backend, after which the same server goes on, takes it back, and no run sees that."""
    with server_home() as folder, embedded.server(folder, LAZY) as address:
        execute(address, *KEYED, "CHECKPOINT", "UPDATE associado SET nome = 'Rui' WHERE id = 5")
        lakehouse = Lake(tmp_path, address, spark)
        lakehouse.run("bronze")
        execute(address, "CHECKPOINT", "UPDATE associado SET nome = 'Eva' WHERE id = 5")
        lakehouse.run("bronze")
        assert not lakehouse.last("bronze").table("associado").how.startswith("full")
        ((victim,),) = query(address, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher'")
        psutil.Process(victim).kill()
        lakehouse.run("bronze", RETRY_SECONDS="30")
        assert query(address, "SELECT nome FROM associado WHERE id = 5") == [("Eva",)]
        assert {row["nome"] for row in lakehouse.table("bronze", "associado") if row["id"] == 5} >= {"Eva"}


def test_a_hot_standby_is_read(own_folder: Path, tmp_path: Path, spark: SparkSession) -> None:
    standby = own_folder / "data/standby.signal"
    standby.touch()
    try:
        with embedded.server(own_folder, REPLICA) as address:
            assert query(address, "SELECT pg_is_in_recovery()") == [(True,)]
            lakehouse = Lake(tmp_path, address, spark)
            lakehouse.run("bronze", RETRY_SECONDS="0")
            has_the_source_of_one_moment(lakehouse, address)
    finally:
        standby.unlink()


def test_a_server_that_is_starting_up_is_waited_for(
    own_folder: Path, tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_folder / "data/recovery.signal").touch()
    # Its recovery asks for files of the log and waits; until then nobody is let in.
    options = REPLICA | {"restore_command": "sleep 0.5; false"}
    address = Postgres(host=str(own_folder), database=embedded.DATABASE, user=embedded.USER)
    lakehouse = Lake(tmp_path, address, spark)
    ready = threading.Event()

    def serve() -> None:
        with embedded.server(own_folder, options):
            ready.wait(60)

    server = threading.Thread(target=serve)
    server.start()
    try:
        lakehouse.run("bronze", RETRY_SECONDS="30")
        assert "starting up; trying again" in capsys.readouterr().err
        has_the_source_of_one_moment(lakehouse, address)
    finally:
        ready.set()
        server.join()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("after", [0, 400, 700, 1500])
def test_a_server_that_goes_silent_between_two_queries_ends_the_run(after: int, lakehouse: Lake, proxy: Proxy) -> None:
    """While it greets, while the snapshot is taken, while the watch itself asks."""
    proxy.fault = lambda link: proxy.stall(link) if link.sent > after else None
    with pytest.raises(TransientFault, match="timeout expired"):
        lakehouse.run("bronze", RETRY_SECONDS="0")


@pytest.mark.usefixtures("hasty")
def test_new_connections_that_greet_and_then_stall_do_not_stop_the_watch(lakehouse: Lake, proxy: Proxy) -> None:
    def stall(link: Link) -> None:
        proxy.fault = lambda link: proxy.stall(link) if link.sent > 500 else None
        proxy.stall(link)

    proxy.fault = lambda link: stall(link) if link.sent > 100_000 else None
    with pytest.raises(TransientFault):
        lakehouse.run("bronze", RETRY_SECONDS="0")


@pytest.mark.usefixtures("hasty")
def test_a_server_that_freezes_behind_a_socket_ends_the_run(
    server_folder: Path, database: Postgres, tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    lakehouse = Lake(tmp_path, database, spark)
    postmaster = psutil.Process(int((server_folder / "data/postmaster.pid").read_text().splitlines()[0]))
    true, frozen = reader.shaped, list[psutil.Process]()

    def shaped(*arguments):  # type: ignore[no-untyped-def]
        if not frozen:
            frozen.extend((postmaster, *postmaster.children()))
            for process in frozen:
                process.suspend()
        return true(*arguments)

    monkeypatch.setattr(reader, "shaped", shaped)
    try:
        with pytest.raises(TransientFault):
            lakehouse.run("bronze", RETRY_SECONDS="0")
    finally:
        for process in frozen:
            process.resume()


def test_a_reader_that_stalls_while_it_connects_is_noticed(
    lakehouse: Lake,
    proxy: Proxy,
    database: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    true, happened = postgres_connection.opened, threading.Lock()

    def opened(*arguments):  # type: ignore[no-untyped-def]
        if happened.acquire(blocking=False):
            proxy.fault = once(0, lambda link: proxy.stall(link))
        return true(*arguments)

    monkeypatch.setattr(reader, "opened", opened)
    lakehouse.run("bronze")
    assert capsys.readouterr().err.count("trying again") == 1
    has_the_source_of_one_moment(lakehouse, database)
