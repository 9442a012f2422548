"""One snapshot of the source, guarded from begin to end, that every reader shares; and what its tables are.

Work on a snapshot that fails for a while is tried again, on a new snapshot.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from conf.settings import Postgres
from pipelines.core.console import Report
from pipelines.core.errors import TransientFault
from pipelines.core.sql import identifier, read_sql
from pipelines.sources.postgres.connection import CONNECT_SECONDS, SourceConnection, connect, reading, source_faults
from pipelines.sources.postgres.transaction import GUARD, SNAPSHOT, attempt, begin, pin

LONGEST_PAUSE = 10  # seconds

Result = TypeVar("Result")


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a server's schema, which any number of readers share by the name `exported` while `connection`
    lives. `log_before`, `log_after`: positions in the write-ahead log just before and just after it was taken.
    `is_durable`: at its end the server's disk has all that it sees; False if this user may not ask that."""

    server: Postgres
    schema: str
    connection: SourceConnection
    exported: str
    xid_range: str
    log_before: str
    log_after: str
    is_durable: bool

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query over the source's rows gives, however long it takes. Raises SourceFault."""
        pin(self.connection.rows)
        return self.connection.rows(sql, unhurried=True)

    @cached_property
    def path(self) -> list[str]:
        """The schemas of the search_path that role and database set, in its order."""
        ((schemas,),) = of_session(self.server, PATH, USUAL_PATH)
        return list(schemas)


READABLE = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
"""


POSITION = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text
"""

EXPORT = "SELECT pg_export_snapshot(), pg_current_snapshot()::text"

# A standby has only what was on a disk already.
FLUSHED = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() >= '{}' ELSE true END"

# A transaction that has a number, whose end wakes the process that writes the log to the disk, up to there.
WAKE = "SELECT pg_current_xact_id()"

FLUSH_SECONDS = 60  # twice as long as that process takes at most


@contextmanager
def take_snapshot(server: Postgres, schema: str, names: list[str]) -> Iterator[Snapshot]:
    """Takes and exports a read-only snapshot of the named tables. What it does not keep out (TRUNCATE, VACUUM FULL,
    ALTER, REFRESH) waits meanwhile. Raises SourceFault, at the end, too, when that did not last."""
    with reading(server) as guard:
        server = guard.server  # the one of several
        readable = guard.rows(READABLE, (schema, names))
        for (name,) in readable:
            # A SELECT of no rows takes the lock even where LOCK TABLE may not: on views, with rights to single columns.
            with source_faults(f"table {schema}.{name} in {server.address}", server):
                guard.rows(f"SELECT FROM {identifier(schema)}.{identifier(name)} LIMIT 0")
        log_before = _position(guard)
        with reading(server, SNAPSHOT) as connection:
            ((exported, xid_range),) = connection.rows(EXPORT)
            log_after = _position(connection)
            is_durable = _can_be_durable(server, connection, log_after)
            yield Snapshot(server, schema, connection, exported, xid_range, log_before, log_after, is_durable)
            if is_durable:
                _wait_until_durable(server, connection, log_after)


def _position(connection: SourceConnection) -> str:
    """The position in the write-ahead log; the first if the server does not say it."""
    rows = attempt(connection.rows, POSITION)
    return (rows[0][0] if rows else None) or "0/0"


def _can_be_durable(server: Postgres, connection: SourceConnection, position: str) -> bool:
    """Whether this user may ask if the log is on the server's disk as far as `position`; lets the server write it."""
    is_flushed = attempt(connection.rows, FLUSHED.format(position))
    if is_flushed == [(False,)]:
        with reading(server) as waking:
            return attempt(waking.rows, WAKE) is not None
    return is_flushed is not None


def _wait_until_durable(server: Postgres, connection: SourceConnection, position: str) -> None:
    """Until then a crash could take back what was committed with synchronous_commit off, and give its transaction's
    number to another one. Raises TransientFault."""
    deadline = time.monotonic() + FLUSH_SECONDS
    while connection.rows(FLUSHED.format(position)) == [(False,)]:
        if time.monotonic() > deadline:
            raise TransientFault(f"PostgreSQL {server.address}: commits that were read are not on its disk yet")
        time.sleep(0.01)


@dataclass(frozen=True)
class SourceColumn:
    """A column as the catalogue has it; `type` is the internal name of its type, of a domain that of the type below.
    `has_money`: its values are or hold money, of which `scale` has the decimal places."""

    name: str
    type: str
    precision: int | None
    scale: int | None
    readable: bool
    has_money: bool = False


@dataclass(frozen=True)
class Relation:
    """A table or view of the source; `size` in bytes, 0 if it has no pages of its own. `has_xmin`: its rows say which
    transaction wrote them. What holds for every row: `unique`, the columns of each unique key without nulls;
    `foreign_keys`, as (column, table, column there)."""

    oid: int
    schema: str
    name: str
    columns: tuple[SourceColumn, ...]
    size: int
    pages: int
    has_xmin: bool = False
    unique: frozenset[frozenset[str]] = frozenset()
    foreign_keys: frozenset[tuple[str, str, str]] = frozenset()

    @property
    def sql(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.name)}"


RELATION = read_sql(__file__, "relation.sql")
COLUMNS = read_sql(__file__, "relation_columns.sql")
FOREIGN_KEYS = read_sql(__file__, "relation_foreign_keys.sql")
UNIQUE_KEYS = read_sql(__file__, "relation_unique_keys.sql")
MONEY = read_sql(__file__, "money.sql")
MONEY_OF_SESSION = "SET LOCAL lc_monetary TO DEFAULT; SELECT scale(0::money::numeric)"
PATH = "SET LOCAL search_path TO DEFAULT; SELECT pg_catalog.current_schemas(true)::pg_catalog.text[]"
USUAL_PATH = "SELECT '{pg_catalog,public}'::text[]"


def describe(snapshot: Snapshot, name: str) -> Relation | None:
    """The relation as the catalogue has it; None if there is none of that name."""
    rows_of = snapshot.connection.rows
    rows = rows_of(RELATION, {"schema": snapshot.schema, "name": name})
    if not rows:
        return None
    ((oid, size, block, has_xmin),) = rows
    columns = tuple(SourceColumn(*column) for column in rows_of(COLUMNS, {"oid": oid}))
    if any(column.has_money for column in columns):
        ((places,),) = of_session(snapshot.server, MONEY, MONEY_OF_SESSION)
        columns = tuple(replace(column, scale=int(places)) if column.has_money else column for column in columns)
    foreign_keys = frozenset(rows_of(FOREIGN_KEYS, {"oid": oid}))
    unique = frozenset(frozenset(names) for (names,) in rows_of(UNIQUE_KEYS, {"oid": oid}))
    return Relation(oid, snapshot.schema, name, columns, size, size // block, has_xmin, unique, foreign_keys)


def of_session(server: Postgres, sql: str, otherwise: str) -> list[tuple[Any, ...]]:
    """What a query gives in a session that we did not pin, where DEFAULT is what role and database set; if it is not
    possible there, what the other one gives. Raises SourceFault."""
    with connect(server) as connection:
        begin(connection.rows, GUARD, connection.info.server_version)
        rows = attempt(connection.rows, sql) or connection.rows(otherwise)
        connection.rows("COMMIT")
    return rows


def with_retries(work: Callable[[], Result], seconds: int, report: Report) -> Result:
    """What `work` returns. After a TransientFault it is tried again, with growing pauses, until it has failed for
    `seconds`. An attempt that lasted longer than that starts the count anew: a load of hours is tried again, too.
    Raises the last TransientFault, which then says how often and how long it was tried."""
    failing_since, tries = time.monotonic(), 0
    while True:
        started = time.monotonic()
        try:
            return work()
        except TransientFault as fault:
            now = time.monotonic()
            if not tries or now - started > seconds:
                failing_since, tries = max(started, now - CONNECT_SECONDS), 0
            tries += 1
            pause = min(LONGEST_PAUSE, 2 ** min(tries - 1, 4) + random.random())  # noqa: S311 (no secret)
            if now + pause > failing_since + seconds:
                if tries == 1:
                    raise
                effort = f"tried {tries} times in {now - failing_since:.0f} s"
                raise TransientFault(f"{fault}; {effort}, run it again when the source is back") from fault
            report.again(f"source: {fault}; trying again in {pause:.0f} s")
            time.sleep(pause)
