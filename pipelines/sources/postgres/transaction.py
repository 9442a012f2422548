"""Read-only transactions in which what a role, a database, or another user of the same session set changes nothing.

All that we set ends with the transaction: behind a pooler the session is other people's (ADR 32).
"""

from collections.abc import Callable
from typing import Any

from pipelines.core.errors import SourceFault
from pipelines.core.sql import postgres_literal

LOCK_SECONDS = 10  # to wait for a lock

# Before anything else: else an error would end the session, the path would be quoted, a function be another one.
SAFE = {"exit_on_error": "off", "quote_all_identifiers": "off", "search_path": "pg_catalog"}

# What changes how values look, which rows come, which objects a name means, or how long a query may take.
PINNED = SAFE | {
    "row_security": "off",
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "xmloption": "content",
    "extra_float_digits": "1",
    **dict.fromkeys(("lc_monetary", "lc_numeric", "lc_time"), "C"),
    "default_text_search_config": "pg_catalog.simple",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "gin_fuzzy_search_limit": "0",
    "lock_timeout": f"{LOCK_SECONDS}s",
    **dict.fromkeys(("statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"), "0"),
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "off",
    "client_min_messages": "error",  # libpq writes messages to standard error, with whatever a function put into them
    "jit": "off",
}

# The same, of settings that not every server has, or may set. One of them lets a server end the queries of a process
# that was killed, the other would keep us from views.
LASTING = {"transaction_timeout": "0"}
WHERE_KNOWN = {"client_connection_check_interval": "2s", "restrict_nonsystem_relation_kind": ""}

# What only a superuser may set, for a role, too: with another value, damaged pages would be read as empty ones.
REFUSED = {"zero_damaged_pages": "off", "ignore_checksum_failure": "off"}

PROVED = PINNED | REFUSED
RESET = "ALTER ROLE … RESET {0}, ALTER DATABASE … RESET {0}, or mend postgresql.conf (ALTER SYSTEM RESET {0})"
BLANK = "\\ "  # as `options` writes it

GUARD = "ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE"
SNAPSHOT = "ISOLATION LEVEL REPEATABLE READ READ ONLY NOT DEFERRABLE"

# A server lacks what is asked, or does not permit it: by SQLSTATE.
NOT_POSSIBLE = ("42501", "42883", "42704", "42P01", "0A000", "22023", "55000")

Execute = Callable[[str], list[tuple[Any, ...]]]


def options() -> str:
    """The settings as libpq's `options`, for what a driver asks before the first transaction. By one of them libpq
    would take each server for a read-only one, when it must choose."""
    named = {name: value for name, value in PINNED.items() if name != "default_transaction_read_only"}
    return " ".join(f"-c {name}={value.replace(' ', BLANK)}" for name, value in named.items())


def begin(execute: Execute, how: str, version: int) -> None:
    """Begins a transaction and pins it. `version`: the server's, such as 180004. Raises SourceFault."""
    at_once = (LASTING if version >= 170000 else {}) | SAFE
    execute("; ".join((f"BEGIN {how}", *map(_set, at_once.items()))))
    pin(execute)
    known = ", ".join(f"({postgres_literal(name)},{postgres_literal(value)})" for name, value in WHERE_KNOWN.items())
    set_known = f"SELECT set_config(name, value, true) FROM (VALUES {known}) known (name, value)"
    attempt(execute, f"{set_known} WHERE current_setting(name, true) IS NOT NULL")


def pin(execute: Execute) -> None:
    """Sets all that a query rests on, and proves it; again before each query, since a function that a view calls may
    have set something else. Raises SourceFault."""
    execute("; ".join(map(_set, PINNED.items())))
    ((*values,),) = execute(f"SELECT {', '.join(f'current_setting({postgres_literal(name)})' for name in PROVED)}")
    for (name, expected), value in zip(PROVED.items(), values, strict=True):
        if value != expected:
            raise SourceFault(f"rows cannot be read safely where {name} is not {expected}: {RESET.format(name)}")


def attempt(execute: Execute, sql: str) -> list[tuple[Any, ...]] | None:
    """The rows of a query; None if the server lacks what it asks for or does not permit it. The transaction goes on."""
    execute("SAVEPOINT attempt")
    try:
        rows = execute(sql)
    except Exception as error:
        if state_of(error) not in NOT_POSSIBLE:
            raise
        execute("ROLLBACK TO SAVEPOINT attempt")
        rows = None
    execute("RELEASE SAVEPOINT attempt")
    return rows


def state_of(error: BaseException | None) -> str:
    """The SQLSTATE of an error of a database driver, psycopg2 or another; empty if it has none."""
    return str(getattr(error, "pgcode", None) or getattr(error, "sqlstate", None) or "").strip("\0")


def _set(setting: tuple[str, str]) -> str:
    name, value = setting
    return f"SET LOCAL {name} ={postgres_literal(value)}"
