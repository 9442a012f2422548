"""One snapshot of the source, guarded from begin to end, that every reader shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2.extensions import connection as Connection

from conf.settings import Postgres
from pipelines.core.sql import identifier
from pipelines.sources.postgres.connection import BEGIN, pinned


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a server's schema, which any number of readers share by the name `exported` while `connection`
    lives. `log_before`, `log_after`: positions in the write-ahead log just before and just after it was taken."""

    server: Postgres
    schema: str
    connection: Connection
    exported: str
    xid_range: str
    log_before: str
    log_after: str


READABLE = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
"""


POSITION = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text
"""


# When this fails, what was read meanwhile may be of two moments.
STILL_THERE = "SELECT 1"


@contextmanager
def guarded(server: Postgres, schema: str, names: list[str]) -> Iterator[None]:
    """Keeps the named tables as they are: what a snapshot does not keep out (TRUNCATE, VACUUM FULL, ALTER, REFRESH)
    waits. A SELECT of no rows takes the lock even where LOCK TABLE may not: on views, with rights to single columns."""
    with pinned(server) as connection, connection.cursor() as cursor:
        cursor.execute(READABLE, (schema, names))
        readable = [name for (name,) in cursor.fetchall()]
        cursor.execute("BEGIN READ ONLY")
        for name in readable:
            cursor.execute(f"SELECT FROM {identifier(schema)}.{identifier(name)} LIMIT 0")
        yield
        cursor.execute(STILL_THERE)


@contextmanager
def take_snapshot(server: Postgres, schema: str, names: list[str]) -> Iterator[Snapshot]:
    """Guards the named tables, then takes and exports a read-only snapshot of them. Raises SourceFault, at the end,
    too, when guard or snapshot did not last."""
    with guarded(server, schema, names), pinned(server) as connection, connection.cursor() as cursor:
        cursor.execute(POSITION)
        (log_before,) = cursor.fetchone()
        cursor.execute(BEGIN)
        cursor.execute("SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_snapshot()::text")
        exported, xid_range = cursor.fetchone()
        cursor.execute(POSITION)
        (log_after,) = cursor.fetchone()
        yield Snapshot(server, schema, connection, exported, xid_range, log_before or "0/0", log_after or "0/0")
        cursor.execute(STILL_THERE)
