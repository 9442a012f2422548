"""One snapshot of the source, guarded from begin to end, that every reader shares; and what its tables are.

Work on a snapshot that fails for a while is tried again, on a new snapshot.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from conf.settings import Postgres
from pipelines.core.console import Report
from pipelines.core.errors import TransientFault
from pipelines.core.sql import identifier, read_sql
from pipelines.sources.postgres.connection import BEGIN, CONNECT_SECONDS, SourceConnection, pinned, source_faults

LONGEST_PAUSE = 10  # seconds

Result = TypeVar("Result")


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a server's schema, which any number of readers share by the name `exported` while `connection`
    lives. `log_before`, `log_after`: positions in the write-ahead log just before and just after it was taken."""

    server: Postgres
    schema: str
    connection: SourceConnection
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


EXPORT = "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.pg_current_snapshot()::text"

# When this fails, what was read meanwhile may be of two moments.
STILL_THERE = "SELECT 1"


@contextmanager
def guarded(server: Postgres, schema: str, names: list[str]) -> Iterator[None]:
    """Keeps the named tables as they are: what a snapshot does not keep out (TRUNCATE, VACUUM FULL, ALTER, REFRESH)
    waits. A SELECT of no rows takes the lock even where LOCK TABLE may not: on views, with rights to single columns."""
    with pinned(server) as connection:
        readable = connection.rows(READABLE, (schema, names))
        connection.rows("BEGIN READ ONLY")
        for (name,) in readable:
            with source_faults(f"table {schema}.{name} in {server.address}", server):
                connection.rows(f"SELECT FROM {identifier(schema)}.{identifier(name)} LIMIT 0")
        yield
        connection.rows(STILL_THERE)


@contextmanager
def take_snapshot(server: Postgres, schema: str, names: list[str]) -> Iterator[Snapshot]:
    """Guards the named tables, then takes and exports a read-only snapshot of them. Raises SourceFault, at the end,
    too, when guard or snapshot did not last."""
    with guarded(server, schema, names), pinned(server) as connection:
        ((log_before,),) = connection.rows(POSITION)
        connection.rows(BEGIN)
        ((exported, xid_range),) = connection.rows(EXPORT)
        ((log_after,),) = connection.rows(POSITION)
        yield Snapshot(server, schema, connection, exported, xid_range, log_before or "0/0", log_after or "0/0")
        connection.rows(STILL_THERE)


@dataclass(frozen=True)
class SourceColumn:
    """A column as the catalogue has it; `type` is the internal name of its type, of a domain that of the type below."""

    name: str
    type: str
    precision: int | None
    scale: int | None
    readable: bool


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


def describe(snapshot: Snapshot, name: str) -> Relation | None:
    """The relation as the catalogue has it; None if there is none of that name."""
    rows_of = snapshot.connection.rows
    rows = rows_of(RELATION, {"schema": snapshot.schema, "name": name})
    if not rows:
        return None
    ((oid, size, block, has_xmin),) = rows
    columns = tuple(SourceColumn(*column) for column in rows_of(COLUMNS, {"oid": oid}))
    foreign_keys = frozenset(rows_of(FOREIGN_KEYS, {"oid": oid}))
    unique = frozenset(frozenset(names) for (names,) in rows_of(UNIQUE_KEYS, {"oid": oid}))
    return Relation(oid, snapshot.schema, name, columns, size, size // block, has_xmin, unique, foreign_keys)


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
