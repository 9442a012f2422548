"""What an incremental load rests on: facts of server, table and software of which each, once changed, asks for a full
load; and whether a snapshot is later than another.

A row's `xmin` tells who wrote it last, but not that its table was swapped, a partition attached, a column added with a
default, a label renamed, or the server restored from a backup.
"""

import hashlib
import json
import re

from psycopg2.extensions import connection as Connection

from conf.settings import Settings
from pipelines.core.identity import software
from pipelines.core.sql import read_sql
from pipelines.lake.runs import Run
from pipelines.sources.postgres.reader import ReadPlan
from pipelines.sources.postgres.snapshot import Snapshot
from pipelines.sources.postgres.types import select_list

# What a person is told when a fact is another one.
CHANGED = {
    "server": "the server is another one",
    "timeline": "the server was restored, or another one took over",
    "started": "the server was started anew, and may be a copy of before",
    "database": "the database is another one",
    "version": "the server has another version",
    "extensions": "the server's extensions changed",
    "relations": "another table has its name, or its partitions changed",
    "columns": "its columns or their defaults changed",
    "types": "the type of a column changed: labels, members",
    "key": "its key changed",
    "reading": "columns are read otherwise",
    "software": "this software changed",
}


HALF = 2**31  # transaction ids that a row's age tells apart


SERVER = read_sql(__file__, "fingerprint_server.sql")
TABLE = read_sql(__file__, "fingerprint_table.sql")


READABLE = """
SELECT bool_and(has_function_privilege(f, 'EXECUTE')) FROM unnest(ARRAY['pg_control_system()',
  'pg_control_checkpoint()', 'pg_walfile_name(pg_lsn)', 'pg_current_wal_insert_lsn()']) f
"""


def server_facts(connection: Connection, settings: Settings) -> dict[str, str] | None:
    """The facts of the server; None where this user may not know them. Nobody but us starts the embedded one, often."""
    with connection.cursor() as cursor:
        cursor.execute(READABLE)
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(SERVER)
        timeline, system, database, version, extensions, began = cursor.fetchone()
    known = {"server": system, "timeline": timeline, "started": began if settings.postgres else ""}
    return known | {"database": database, "version": version, "extensions": _hash(extensions or "")}


def table_facts(connection: Connection, one: ReadPlan, known: dict[str, str] | None) -> tuple[str, str]:
    """What a table's incremental loads rest on, as JSON; and why it has none, empty where it may."""
    with connection.cursor() as cursor:
        cursor.execute(TABLE, {"oid": one.relation.oid})
        relations, columns, types, foreign, names = cursor.fetchone()
    keys = frozenset(one.table.keys)
    why = ""
    if known is None:
        why = "this user may not ask which server it is (EXECUTE on pg_control_system, pg_control_checkpoint)"
    elif foreign or not one.relation.has_xmin:
        why = "it is a view, or another kind of table than PostgreSQL's own"
    elif keys not in one.relation.unique:
        why = f"the source has no unique, not null key {', '.join(one.table.keys)}"
    elif any(one.readings[key].fits for key in one.table.keys):
        why = "its key may have values that bronze cannot hold"
    elif names:
        why = "a column holds names of the catalogue"
    facts = (known or {}) | {
        "relations": relations,
        "columns": _hash(columns),
        "types": _hash(types or ""),
        "key": ", ".join(one.table.keys) if keys in one.relation.unique else "",
        "reading": _hash(select_list(one.readings) + json.dumps(one.types)),
        "software": software(one.table.domain),
    }
    return json.dumps(facts), why


def what_changed(was: str, now: str, but: tuple[str, ...] = ()) -> str:
    """The first fact that is another one, in words; empty where all are the same, or among `but`."""
    before, after = json.loads(was or "{}"), json.loads(now)
    return next((said for name, said in CHANGED.items() if name not in but and before.get(name) != after.get(name)), "")


def went_back(was: Run, now: Snapshot) -> str:
    """Why a snapshot may not see what the one of a run saw; empty where it sees all of that.

    Of a standby's snapshot the transactions that run are not told (`xmin:xmax:xip,…`); its place in the log is.
    """
    (low, high, running), (_, top, still) = _parsed(was.snapshot), _parsed(now.xid_range)
    ahead = not was.position or _place(was.position) > _place(now.log_before)
    if ahead or top < high or any(one < high and one not in running for one in still):
        return "the source is older than when it was read last"
    return "too many transactions since it was read last" if top - low >= HALF else ""


def newer_than(snapshot: str) -> str:
    """The SQL condition of the rows that were written by a transaction which a snapshot may not have seen."""
    return f"age(xmin) <= (SELECT age('{int(snapshot.split(':')[0]) % 2**32}'::xid))"


def _parsed(snapshot: str) -> tuple[int, int, set[int]]:
    low, high, running = re.fullmatch(r"(\d+):(\d+):([\d,]*)", snapshot).groups()  # type: ignore[union-attr]
    return int(low), int(high), {int(one) for one in running.split(",") if one}


def _place(position: str) -> int:
    """A place in the write-ahead log, as `16/B374D848`, as a number."""
    high, low = position.split("/")
    return int(high, 16) << 32 | int(low, 16)


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]
