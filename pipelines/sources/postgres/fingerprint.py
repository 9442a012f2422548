"""What an incremental load rests on (ADR 15): facts about server, table and software. When any of them changes, the
table is loaded in full. And whether a snapshot is later than that of an earlier run."""

import hashlib
import json
import re

from conf.settings import Settings
from pipelines.core.identity import software
from pipelines.core.sql import read_sql
from pipelines.lake.runs import Run
from pipelines.sources.postgres.connection import SourceConnection
from pipelines.sources.postgres.reader import ReadPlan
from pipelines.sources.postgres.snapshot import Snapshot
from pipelines.sources.postgres.transaction import attempt
from pipelines.sources.postgres.types import select_list

# How each fact is reported when it is not as it was.
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

XID_DISTANCE = 2**31  # transaction ids that a row's age can tell apart

SERVER = read_sql(__file__, "fingerprint_server.sql")
TABLE = read_sql(__file__, "fingerprint_table.sql")


def server_facts(snapshot: Snapshot, settings: Settings) -> tuple[dict[str, str], str]:
    """The facts about the server, and why it allows no incremental loads; empty if it does. The start counts for a
    foreign server only: the embedded one is started for each run."""
    rows = attempt(snapshot.connection.rows, SERVER)
    if rows is None:
        return {}, "this user may not ask which server it is (EXECUTE on pg_control_system, pg_control_checkpoint)"
    ((timeline, system, database, version, extensions, began),) = rows
    known = {"server": system, "timeline": timeline, "started": began if settings.postgres else ""}
    known |= {"database": database, "version": version, "extensions": _hash(extensions or "")}
    unknown = "this user may not ask what is on its disk (EXECUTE on pg_current_wal_flush_lsn, pg_current_xact_id)"
    return known, "" if snapshot.is_durable else unknown


def table_facts(connection: SourceConnection, plan: ReadPlan, server: tuple[dict[str, str], str]) -> tuple[str, str]:
    """What a table's incremental loads rest on, as JSON; and why it cannot have any, empty if it can."""
    ((relations, columns, types, foreign, names),) = connection.rows(TABLE, {"oid": plan.relation.oid})
    keys = frozenset(plan.table.keys)
    known, why = server[0], ""
    if foreign or not plan.relation.has_xmin:
        why = "it is a view, or another kind of table than PostgreSQL's own"
    elif keys not in plan.relation.unique:
        why = f"the source has no unique, not null key {', '.join(plan.table.keys)}"
    elif any(plan.readings[key].fits for key in plan.table.keys):
        why = "its key may have values that bronze cannot hold"
    elif names:
        why = "a column holds names of the catalogue"
    facts = known | {
        "relations": relations,
        "columns": _hash(columns),
        "types": _hash(types or ""),
        "key": ", ".join(plan.table.keys) if keys in plan.relation.unique else "",
        "reading": _hash(select_list(plan.readings) + json.dumps(plan.types)),
        "software": software(plan.table.domain),
    }
    return json.dumps(facts), server[1] or why


def what_changed(was: str, now: str, but: tuple[str, ...] = ()) -> str:
    """The first fact that changed, in words; empty if none did, except those named in `but`."""
    old, new = json.loads(was or "{}"), json.loads(now)
    return next((text for name, text in CHANGED.items() if name not in but and old.get(name) != new.get(name)), "")


def went_back(was: Run, now: Snapshot) -> str:
    """Why a snapshot may not see all that the snapshot of a run saw; empty if it does. A standby's (`xmin:xmax:xip,…`)
    does not name the running transactions; its position in the log says more."""
    (low, high, running), (_, top, still) = _parsed(was.snapshot), _parsed(now.xid_range)
    is_ahead = not was.position or _position(was.position) > _position(now.log_before)
    if is_ahead or top < high or any(xid < high and xid not in running for xid in still):
        return "the source is older than when it was read last"
    return "too many transactions since it was read last" if top - low >= XID_DISTANCE else ""


def newer_than(snapshot: str) -> str:
    """The SQL condition of the rows that were written by a transaction that a snapshot may not have seen."""
    return f"age(xmin) <= (SELECT age('{int(snapshot.split(':')[0]) % 2**32}'::xid))"


def _parsed(snapshot: str) -> tuple[int, int, set[int]]:
    low, high, running = re.fullmatch(r"(\d+):(\d+):([\d,]*)", snapshot).groups()  # type: ignore[union-attr]
    return int(low), int(high), {int(xid) for xid in running.split(",") if xid}


def _position(text: str) -> int:
    """A position in the write-ahead log, written as `16/B374D848`, as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]
