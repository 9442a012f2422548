"""A real PgBouncer in front of the tests' PostgreSQL: each transaction gets the session that is free."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conf.settings import Postgres
from pipelines.core.errors import SourceFault
from pipelines.sources.postgres import embedded
from pipelines.sources.postgres.connection import connect
from tests.support.folders import server_home


@contextmanager
def pooled(server: Postgres, sessions: int = 20) -> Iterator[Postgres]:
    """The address of a pooler in transaction mode with so many sessions."""
    program = shutil.which("pgbouncer")
    if not program:
        pytest.skip("no pgbouncer here")
    with server_home() as folder:
        embedded._own(folder)
        users, settings = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"{server.user}" ""\n')
        settings.write_text(
            f"""[databases]
            * = host={server.host} port={server.port}
            [pgbouncer]
            listen_addr =
            listen_port = 6432
            unix_socket_dir = {folder}
            auth_type = trust
            auth_file = {users}
            pool_mode = transaction
            default_pool_size = {sessions}
            """
        )
        for file in (users, settings):
            file.chmod(0o644)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, str(settings)], stdout=log, stderr=log, **embedded._as_server())
        address = server.model_copy(update={"host": str(folder), "port": 6432})
        try:
            wait_for(address, folder / "log")
            yield address
        finally:
            process.terminate()
            process.wait(20)


def wait_for(address: Postgres, log: Path) -> None:
    for _ in range(100):
        try:
            with connect(address):
                return
        except SourceFault:
            time.sleep(0.05)
    raise AssertionError(log.read_text())
