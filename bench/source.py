"""The source of a benchmark: an embedded PostgreSQL that also listens on the loopback, as Spark's JDBC needs.

Each size lies in a schema of its own, and stays for the next time.
"""

import secrets
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from pydantic import SecretStr

from conf.settings import Postgres, load
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.seed.postgres import seed
from pipelines.sources.postgres import embedded
from pipelines.sources.postgres.connection import dsn

ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class Source:
    """A server with the tables of one size in a schema; its password is of this process only."""

    server: Postgres
    schema: str
    rows: int

    @property
    def environment(self) -> dict[str, str]:
        """The connection in the words of our settings, which the rivals read, too."""
        assert self.server.password is not None
        return {
            "LAKEHOUSE_POSTGRES__HOST": self.server.host,
            "LAKEHOUSE_POSTGRES__PORT": str(self.server.port),
            "LAKEHOUSE_POSTGRES__DATABASE": self.server.database,
            "LAKEHOUSE_POSTGRES__USER": self.server.user,
            "LAKEHOUSE_POSTGRES__PASSWORD": self.server.password.get_secret_value(),
            "LAKEHOUSE_POSTGRES__SCHEMA": self.schema,
        }


def home() -> Path:
    """The folder of the benchmark's server and of its rounds' lakes. Remove it to start over."""
    return embedded.home().with_name(f"{embedded.home().name}-bench")


@contextmanager
def running(folder: Path) -> Iterator[Postgres]:
    """The server, on a free port of the loopback, with a password made up for this call."""
    folder.mkdir(parents=True, exist_ok=True)
    access, password = folder / "access.conf", secrets.token_urlsafe(24)
    access.write_text(ACCESS, "utf-8")
    access.chmod(0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"listen_addresses": "127.0.0.1", "hba_file": str(access), "port": str(port), "shared_buffers": "1GB"}
    with embedded.server(folder, options) as local:
        execute(local, f"ALTER ROLE {embedded.USER} PASSWORD %s", values=(password,))
        yield Postgres(
            host="127.0.0.1", port=port, database=local.database, user=local.user, password=SecretStr(password)
        )


def source(server: Postgres, movements: int) -> Source:
    """The fake tables with that many movements; makes them if they are not there."""
    made = Source(server, f"size_{movements}", movements)
    size = {"LAKEHOUSE_SEED__MOVIMENTOS": str(movements)}
    settings, _ = load(made.environment | size, base=Path.cwd())
    with Report() as report:
        seed(settings, server, catalogue.tables_of("bronze", "cartoes"), False, report)
    settle(server)
    return made


def settle(server: Postgres) -> None:
    """Makes the server write now what the first reader would otherwise have to write."""
    execute(server, "VACUUM ANALYZE", "CHECKPOINT")


def execute(server: Postgres, *statements: str, values: tuple[object, ...] | None = None) -> None:
    """Statements in one session, each committed."""
    with closing(psycopg2.connect(dsn(server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, values)


def first_row(server: Postgres, query: str) -> tuple[Any, ...]:
    with closing(psycopg2.connect(dsn(server))) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        row: tuple[Any, ...] = cursor.fetchone()
        return row
