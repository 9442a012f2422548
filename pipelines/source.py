"""The PostgreSQL source: connections that read the same bytes for any role, one snapshot, and what its tables are."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

from conf.settings import Postgres
from pipelines.errors import SourceFault

# Role and database settings must not change what arrives, nor how long it may take.
PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "extra_float_digits": "1",
    "search_path": "pg_catalog",
    "row_security": "off",
    "lock_timeout": "30s",
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "on",
    "jit": "off",
}
# Names that this server does not know are left out: transaction_timeout came with PostgreSQL 17.
PIN = (
    "SELECT pg_catalog.set_config(v.name, v.value, false) FROM (VALUES "
    + ", ".join(f"('{name}', '{value}')" for name, value in PINNED.items())
    + ") v(name, value) WHERE EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE s.name = v.name)"
)
# An error in the middle of a stream comes without its code; what it quotes may be a value.
STREAMED = "[libpq] Execution error [PGRES_FATAL_ERROR]: ERROR:  "
QUOTED = re.compile('"[^"]*"')
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal, for any setting of the server."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def dsn(server: Postgres) -> str:
    """The connection string, the password in clear: for libpq only, never shown."""
    made: str = make_dsn(
        **server.parameters,
        connect_timeout="10",
        application_name="lakehouse",
        client_encoding="UTF8",
        keepalives_idle="30",
        keepalives_interval="10",
        keepalives_count="3",
    )
    return made


def reason(error: Exception) -> str:
    """The first line of a database error; of a data error (SQLSTATE class 22) the code only: its text quotes values."""
    state = str(getattr(error, "pgcode", None) or getattr(error, "sqlstate", None) or "")
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    said: str = (primary or str(error).strip() or type(error).__name__).splitlines()[0]
    if state.startswith(("22", "P0")):  # data errors and those that functions raise may quote values
        return f"the server cannot make sense of a value in it (SQLSTATE {state})"
    if said.startswith(STREAMED):
        return QUOTED.sub('"…"', said.removeprefix(STREAMED))
    return said


@contextmanager
def connect(server: Postgres) -> Iterator[Connection]:
    """A connection in autocommit, not pinned. Raises SourceFault where the server cannot be reached or goes away."""
    try:
        connection = psycopg2.connect(dsn(server))
    except psycopg2.Error as error:
        raise SourceFault(f"PostgreSQL {server.address}, user {server.user}: {reason(error)}") from error
    try:
        connection.autocommit = True
        yield connection
    except psycopg2.Error as error:
        raise SourceFault(f"PostgreSQL {server.address}: {reason(error)}") from error
    finally:
        connection.close()


@dataclass(frozen=True)
class Snapshot:
    """One picture of the source that any number of readers share while `connection` lives."""

    connection: Connection
    exported: str
    xid_range: str


READABLE = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
"""


@contextmanager
def guarded(server: Postgres, schema: str, names: list[str]) -> Iterator[None]:
    """Keeps the tables named as they are: what a snapshot does not keep out (TRUNCATE, VACUUM FULL, ALTER, REFRESH)
    waits. A SELECT of no row takes the lock also where LOCK TABLE may not: views, grants on single columns."""
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(PIN)
        cursor.execute(READABLE, (schema, names))
        readable = [name for (name,) in cursor.fetchall()]
        cursor.execute("BEGIN READ ONLY")
        for name in readable:
            cursor.execute(f"SELECT FROM {quoted(schema)}.{quoted(name)} LIMIT 0")
        yield


@contextmanager
def snapshot(server: Postgres, schema: str, names: list[str]) -> Iterator[Snapshot]:
    """Opens and exports a read-only snapshot of the tables named, guarded before it is taken. Raises SourceFault."""
    with guarded(server, schema, names), connect(server) as connection, connection.cursor() as cursor:
        cursor.execute(PIN)
        cursor.execute(BEGIN)
        cursor.execute("SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_snapshot()::text")
        exported, xid_range = cursor.fetchone()
        yield Snapshot(connection, exported, xid_range)


@dataclass(frozen=True)
class SourceColumn:
    """A column as the catalogue has it; `type` is the base type's internal name, of a domain the one below it."""

    name: str
    type: str
    precision: int | None
    scale: int | None
    readable: bool


@dataclass(frozen=True)
class Relation:
    """A table or view of the source; `size` in bytes, 0 where it has no pages of its own. `has_xmin`: its rows say
    which transaction wrote them.

    Constraints that hold for every row: the primary key's columns, and (column, table, column) of foreign keys.
    """

    schema: str
    name: str
    columns: tuple[SourceColumn, ...]
    size: int
    pages: int
    has_xmin: bool = False
    primary_key: frozenset[str] = frozenset()
    foreign_keys: frozenset[tuple[str, str, str]] = frozenset()

    @property
    def sql(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


RELATION = """
SELECT c.oid, CASE WHEN c.relkind IN ('r', 'm') AND am.amname = 'heap' THEN pg_relation_size(c.oid) ELSE 0 END,
       current_setting('block_size')::int, c.relkind IN ('r', 'm', 'p')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
# typmod of numeric: ((precision << 16) | (scale & 0x7ff)) + 4, the scale a signed 11-bit number.
COLUMNS = """
WITH RECURSIVE base AS (
  SELECT a.attnum, a.attname, a.atttypid AS typid, a.atttypmod AS typmod FROM pg_attribute a
  WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT b.attnum, b.attname, t.typbasetype, CASE WHEN b.typmod = -1 THEN t.typtypmod ELSE b.typmod END
  FROM base b JOIN pg_type t ON t.oid = b.typid WHERE t.typtype = 'd'
)
SELECT b.attname, CASE WHEN t.typtype = 'e' THEN 'enum' WHEN n.nspname <> 'pg_catalog' THEN 'other' ELSE t.typname END,
       CASE WHEN t.typname = 'numeric' AND b.typmod > 0 THEN ((b.typmod - 4) >> 16) & 65535 END,
       CASE WHEN t.typname = 'numeric' AND b.typmod > 0 THEN (((b.typmod - 4) & 2047) # 1024) - 1024 END,
       has_column_privilege(%(oid)s::oid, b.attnum, 'SELECT')
FROM base b JOIN pg_type t ON t.oid = b.typid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype <> 'd' ORDER BY b.attnum
"""

# Of a table that others inherit from, constraints say nothing about the heirs' rows; an index that is not valid, as of
# a partitioned table before all its partitions have it, says nothing at all.
CONSTRAINTS = """
SELECT c.contype, ARRAY(SELECT a.attname::text FROM unnest(c.conkey) k JOIN pg_attribute a
                        ON a.attrelid = c.conrelid AND a.attnum = k),
       f.relname, (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.confrelid AND a.attnum = c.confkey[1])
FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid
JOIN pg_index i ON i.indexrelid = c.conindid AND i.indisvalid
LEFT JOIN pg_class f ON f.oid = c.confrelid AND f.relnamespace = r.relnamespace
WHERE c.conrelid = %s AND c.contype IN ('p', 'f') AND c.convalidated
  AND (r.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = r.oid))
"""


def describe(connection: Connection, schema: str, name: str) -> Relation | None:
    """The relation as the catalogue has it, or None where there is none of that name."""
    with connection.cursor() as cursor:
        cursor.execute(RELATION, (schema, name))
        found = cursor.fetchone()
        if found is None:
            return None
        oid, size, block, has_xmin = found
        cursor.execute(COLUMNS, {"oid": oid})
        columns = tuple(SourceColumn(*row) for row in cursor.fetchall())
        cursor.execute(CONSTRAINTS, (oid,))
        constraints = cursor.fetchall()
    primary = frozenset(column for kind, own, _, _ in constraints if kind == "p" for column in own)
    foreign = frozenset((own[0], table, key) for kind, own, table, key in constraints if kind == "f" and len(own) == 1)
    return Relation(schema, name, columns, size, size // block, has_xmin, primary, foreign)
