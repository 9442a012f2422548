"""The embedded PostgreSQL: private, and gone when nobody needs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from conf.settings import PROJECT, Postgres
from pipelines.core.errors import LockedFault, SourceFault
from pipelines.sources.postgres import embedded
from pipelines.sources.postgres.connection import dsn
from tests.support.folders import server_home
from tests.support.source import query


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_home() as made:
        yield made


def test_it_listens_on_no_port_and_its_folder_is_private(server: Postgres, server_folder: Path) -> None:
    assert query(server, "SHOW listen_addresses") == [("",)]
    assert server_folder.stat().st_mode & 0o077 == 0


def test_a_server_whose_owner_was_killed_is_stopped_and_its_data_stay(folder: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from pipelines.sources.postgres import embedded\n"
        "with embedded.server(Path(sys.argv[1])):\n"
        "    print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(folder)], cwd=PROJECT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        address = Postgres(host=str(folder), database=embedded.DATABASE, user=embedded.USER)
        connection = psycopg2.connect(dsn(address))
        connection.cursor().execute("CREATE TABLE kept (id int)")
        connection.commit()
        connection.close()
        with pytest.raises(LockedFault, match="works on the embedded PostgreSQL"), embedded.server(folder):
            pass
        left = int((folder / "data/postmaster.pid").read_text().splitlines()[0])
        process.send_signal(signal.SIGKILL)
    os.kill(left, 0)  # the server outlived its owner
    with embedded.server(folder) as address:
        assert int((folder / "data/postmaster.pid").read_text().splitlines()[0]) != left
        assert query(address, "SELECT count(*) FROM kept") == [(0,)]
    assert not (folder / "data/postmaster.pid").exists()


def test_a_process_that_has_the_old_servers_number_by_now_is_left_alone(folder: Path) -> None:
    with embedded.server(folder):
        pass
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "postgres"]) as other:
        (folder / "data/postmaster.pid").write_text(f"{other.pid}\n{folder}/data\n")
        with embedded.server(folder) as address:
            assert query(address, "SELECT 1") == [(1,)]
        assert other.poll() is None
        other.kill()


def test_a_folder_that_is_a_link_or_somebody_elses_is_refused(folder: Path) -> None:
    link = folder / "link"
    link.symlink_to("/etc")
    with pytest.raises(SourceFault, match="belongs to somebody else"), embedded.server(link):
        pass
