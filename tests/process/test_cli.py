"""The command line in child processes: exit codes, messages, signals, another person's PostgreSQL."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.settings import Postgres
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.seed.postgres import seed
from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.process import Cli, clean_environment, connection_settings
from tests.support.source import connected, execute, query

NASTY_PASSWORD = "@:/?#%&' \"çé\\${HOME}"
SCHEMA = "Minha Base"


@pytest.fixture
def reader(server_folder: Path, database: Postgres) -> Iterator[Postgres]:
    """A role with a password full of specials and read-only rights on a schema with a blank and capitals."""
    role = f"leitor_{os.getpid()}"
    hba = server_folder / "data/pg_hba.conf"
    before = hba.read_text()
    with connected(database) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD %s", (NASTY_PASSWORD,))
        cursor.execute(f'CREATE SCHEMA "{SCHEMA}"; GRANT USAGE ON SCHEMA "{SCHEMA}" TO {role}')
        cursor.execute(f'ALTER DEFAULT PRIVILEGES IN SCHEMA "{SCHEMA}" GRANT SELECT ON TABLES TO {role}')
        hba.write_text(f"local all {role} scram-sha-256\n{before}")
        cursor.execute("SELECT pg_reload_conf()")
        yield database.model_copy(update={"user": role})
        hba.write_text(before)
        cursor.execute(f"SELECT pg_reload_conf(); DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(("words", "code"), [(("status",), 0), (("silver",), 4), (("plan",), 3)])
def test_a_closed_output_pipe_changes_no_exit_code(cli: Cli, words: tuple[str, ...], code: int) -> None:
    environment = clean_environment(cli.folder) | {
        "LAKEHOUSE_POSTGRES__HOST": "/nowhere",
        "LAKEHOUSE_RETRY_SECONDS": "0",
    }
    environment |= {"LAKEHOUSE_POSTGRES__DATABASE": "d", "LAKEHOUSE_POSTGRES__USER": "u"}
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pipelines", *words]
    result = subprocess.run(command, cwd=cli.folder, env=environment, stdout=write, stderr=write, timeout=60)
    os.close(write)
    assert result.returncode == code


@pytest.mark.parametrize(("words", "code"), [(("brnze",), 2), (("silver",), 4)])
def test_a_log_on_a_full_disk_changes_no_exit_code(cli: Cli, words: tuple[str, ...], code: int) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "pipelines", *words]
        environment = clean_environment(cli.folder)
        result = subprocess.run(command, cwd=cli.folder, env=environment, stdout=subprocess.PIPE, stderr=full)
    assert (result.returncode, result.stdout) == (code, b"")


SHORT = [
    ("ulimit -n 10; python -m pipelines bronze", 5, "Too many open files; raise `ulimit -n`"),
    ("ulimit -v 200000; python -m pipelines status", 5, "memory: this process gets too little memory; free some"),
    ("python -OO -m pipelines status", 2, "usage: python -OO takes the docstrings away"),
    ("mkdir gone; cd gone; rmdir ../gone; python -m pipelines status", 2, "settings: the working folder is gone"),
    ("python -m pipelines --help > /dev/full", 5, "storage: the result cannot be written: No space left on device\n"),
]


@pytest.mark.parametrize(("line", "code", "words"), SHORT)
def test_what_a_shell_leaves_too_little_of_is_named(cli: Cli, line: str, code: int, words: str) -> None:
    shell = ["bash", "-c", line.replace("python", sys.executable)]
    environment = clean_environment(cli.folder)
    result = subprocess.run(shell, cwd=cli.folder, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, words in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.stderr


def test_a_result_that_cannot_be_written_is_said(cli: Cli) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "pipelines", "status"]
        environment = clean_environment(cli.folder)
        result = subprocess.run(command, cwd=cli.folder, env=environment, stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (
        5,
        b"storage: the result cannot be written: No space left on device\n",
    )


def test_a_named_server_with_nasty_password_schema_and_paths_from_env_file(
    cli: Cli, cli_here: CliHere, reader: Postgres, server: Postgres
) -> None:
    """Bronze, which alone asks the server, in a process of its own."""
    owner = server.model_copy(update={"database": reader.database})
    lake = Lake(cli.folder, owner, None)  # type: ignore[arg-type]
    with Report() as report:
        fake = lake.settings(SEED__MOVIMENTOS="200", POSTGRES__SCHEMA=SCHEMA)
        seed(fake, owner, catalogue.tables_of("bronze", "cartoes"), False, report)
    escaped = NASTY_PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    (cli.folder / ".env").write_text(
        f"LAKEHOUSE_POSTGRES__HOST={reader.host}\nLAKEHOUSE_POSTGRES__DATABASE={reader.database}\n"
        f"LAKEHOUSE_POSTGRES__USER={reader.user}\nLAKEHOUSE_POSTGRES__PASSWORD='{escaped}'\n"
        f"LAKEHOUSE_POSTGRES__SCHEMA={SCHEMA}\nLAKEHOUSE_ROOT=o lago\nLAKEHOUSE_EXPORT_PATH=a saída\n",
        "utf-8",
    )
    bronze, others = cli("bronze"), cli_here("gold", "silver")  # layer order, whatever the order typed
    assert bronze.returncode == others.returncode == 0, bronze.stderr + others.stderr
    output = bronze.stdout + bronze.stderr + others.stdout + others.stderr
    assert "movimento_flat.csv: 200 rows" in others.stdout and "nome_associado" not in output  # no member in a log
    assert (cli.folder / "a saída/movimento_flat.csv").read_text("utf-8").count("\n") > 200
    assert (cli.folder / "o lago/silver/cartoes/conta/_delta_log").is_dir()
    text = "".join(path.read_text("utf-8", "replace") for path in (cli.folder / "o lago").rglob("*.json"))
    assert NASTY_PASSWORD not in output + text

    wrong = cli("bronze", env={"LAKEHOUSE_POSTGRES__PASSWORD": "wrong-s3cret"})
    assert wrong.returncode == 3 and wrong.stderr.count("\n") == 1
    assert f"user {reader.user}" in wrong.stderr and "password authentication failed" in wrong.stderr
    assert "s3cret" not in wrong.stderr


@pytest.fixture
def slow_run(cli: Cli, database: Postgres) -> Iterator["subprocess.Popen[str]"]:
    """A bronze run that waits in the source for a minute; its lake is locked when this fixture is ready."""
    execute(
        database,
        "CREATE TABLE associado (id int, nome text, sobrenome text, idade int, email text)",
        "CREATE TABLE conta (id int, tipo text, data_criacao timestamp, id_associado int)",
        "CREATE TABLE cartao (id int, num_cartao text, nom_impresso text, id_conta int, id_associado int)",
        """CREATE VIEW movimento AS SELECT 1 AS id, 1.0 AS vlr_transacao, 'x' AS des_transacao,
        now()::timestamp AS data_movimento, 1 AS id_cartao FROM pg_sleep(60)""",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "bronze"],
        cwd=cli.folder,
        env=clean_environment(cli.folder) | connection_settings(database),
        stderr=subprocess.PIPE,
        text=True,
    )
    sleeping = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lakehouse %' AND wait_event = 'PgSleep'"
    )
    deadline = time.monotonic() + 60
    while query(database, sleeping) == [(0,)]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_run_at_once_and_leaves_no_reader(
    slow_run: "subprocess.Popen[str]", database: Postgres, number: signal.Signals, code: int
) -> None:
    slow_run.send_signal(number)
    _, output = slow_run.communicate(timeout=20)
    assert slow_run.returncode == code and "Traceback" not in output
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lakehouse %' AND wait_event = 'PgSleep'"
    assert query(database, ours) == [(0,)]


def test_a_second_run_on_the_lake_leaves_at_once_with_exit_six(
    slow_run: "subprocess.Popen[str]", cli: Cli, database: Postgres
) -> None:
    second = cli("silver", env=connection_settings(database))
    assert second.returncode == 6 and f"process {slow_run.pid} on " in second.stderr
    assert slow_run.poll() is None
