"""Compares bronze with the source as it is now: checksums that PostgreSQL and DuckDB compute alike.

A checksum adds 60 bits of md5(key | value) over the rows; values are written the same way on both sides.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path

from psycopg2.extensions import connection as Connection

from conf.contract import DECIMAL, is_summed
from conf.settings import Postgres, Settings
from pipelines.core.console import Report
from pipelines.core.sql import identifier
from pipelines.lake import folders
from pipelines.lake.checksums import Difference, differences
from pipelines.lake.engine import count, engine, relation
from pipelines.lake.runs import Run
from pipelines.sources.postgres import fingerprint
from pipelines.sources.postgres.connection import unhurried
from pipelines.sources.postgres.reader import Reader, ReadPlan
from pipelines.sources.postgres.snapshot import Snapshot
from pipelines.sources.postgres.types import Reading, rescued

NEWER = "_lakehouse_newer"


COLUMNS = 400  # a SELECT of PostgreSQL has at most 1664 items


Evidence = dict[str, tuple[str, Decimal | None]]


@dataclass(frozen=True)
class SourceDifference:
    """`wrong`: how bronze differs from the rows that were there before the run's snapshot was taken; those that only
    bronze has may have been deleted since. `newer`: rows written since; `gone`: rows whose key is there no more."""

    wrong: list[Difference]
    newer: int
    gone: int
    exact: bool = True


def source_evidence(connection: Connection, one: ReadPlan) -> tuple[int, Evidence]:
    """Rows of a table in the snapshot and, of each column, its checksum and its sum, as PostgreSQL computes them."""
    values = values_of(one)
    key = ", ".join(f"({values[name]})::text" for name in one.table.keys)
    rows, evidence = 0, Evidence()
    for some in _slices(values, COLUMNS):
        items = ["count(*)"]
        for name, value in some:
            digest = f"md5(concat_ws(',', {key}) || '|' || {postgres_text(value, one.types[name])})"
            items.append(f"coalesce(sum(('x' || left({digest}, 15))::bit(60)::bigint), 0)::text")
            items.append(f"coalesce(sum({value}), 0)" if is_summed(one.types[name]) else "NULL::numeric")
        with unhurried(connection), connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(items)} FROM {one.relation.sql}")
            rows, *found = cursor.fetchone()
        evidence |= {name: (found[2 * index], found[2 * index + 1]) for index, (name, _) in enumerate(some)}
    return rows, evidence


def _slices(values: dict[str, str], size: int) -> Iterator[list[tuple[str, str]]]:
    items = iter(values.items())
    while some := list(islice(items, size)):
        yield some


def values_of(one: ReadPlan) -> dict[str, str]:
    """The SQL of each column that is compared; `_rescued` only where all columns are that it may tell of."""
    values = {name: reading.value for name, reading in one.readings.items()}
    return values if one.partial else values | {"_rescued": rescued(one.readings)}


def bronze_evidence(what: str, rows: str, one: ReadPlan) -> tuple[int, Evidence]:
    """The same of a relation (SQL), as DuckDB computes it."""
    names = list(values_of(one))
    key = ", ".join(f"{identifier(name)}::varchar" for name in one.table.keys)
    items = ["count(*)"]
    for name in names:
        digest = f"md5(concat_ws(',', {key}) || '|' || {duckdb_text(identifier(name), one.types[name])})"
        items.append(f"coalesce(sum(('0x' || left({digest}, 15))::bigint), 0)::varchar")
        items.append(f"coalesce(sum({identifier(name)}), 0)" if is_summed(one.types[name]) else "NULL")
    with engine(what) as connection:
        found = connection.execute(f"SELECT {', '.join(items)} FROM {rows}").fetchone()
    assert found is not None
    return found[0], {name: (found[1 + 2 * index], found[2 + 2 * index]) for index, name in enumerate(names)}


def postgres_text(value: str, kind: str) -> str:
    """A value of bronze's type `kind`, written so that DuckDB writes it alike."""
    if (match := DECIMAL.fullmatch(kind)) and match[1] == match[2]:
        return rf"regexp_replace(({value})::text, '^(-?)0\.', '\1.')"
    return {
        "float": f"('x' || encode(float4send({value}), 'hex'))::bit(32)::int::text",
        "double": f"('x' || encode(float8send({value}), 'hex'))::bit(64)::bigint::text",
        "binary": f"encode({value}, 'hex')",
        "date": f"(({value}) - '1970-01-01'::date)::text",
        "timestamp_ntz": f"(extract(epoch FROM ({value})) * 1000000)::bigint::text",
        "timestamp": f"(extract(epoch FROM ({value})) * 1000000)::bigint::text",
    }.get(kind, f"({value})::text")


def duckdb_text(value: str, kind: str) -> str:
    """A value as `postgres_text` writes it."""
    return {
        "float": f"({value}::bit)::integer::varchar",
        "double": f"({value}::bit)::bigint::varchar",
        "binary": f"lower(hex({value}))",
        "date": f"({value} - DATE '1970-01-01')::varchar",
        "timestamp_ntz": f"epoch_us({value})::varchar",
        "timestamp": f"epoch_us({value})::varchar",
    }.get(kind, f"{value}::varchar")


def compare(
    settings: Settings, server: Postgres, picture: Snapshot, one: ReadPlan, bronze: str, run: Run, report: Report
) -> SourceDifference | None:
    """How the source's table differs from bronze's rows (SQL), which `run` left; None where it does not."""
    what = f"bronze.{one.table.name}"
    now, then = source_evidence(picture.connection, one), bronze_evidence(what, bronze, one)
    if now == then:
        return None
    types = {name: one.types[name] for name in values_of(one)}
    facts, _ = fingerprint.table_facts(picture.connection, one, fingerprint.server_facts(picture.connection, settings))
    changed = fingerprint.what_changed(run.table(one.table.name).basis, facts, but=("reading", "software"))
    exact = one.relation.has_xmin and not changed and not fingerprint.went_back(run, picture)
    since = fingerprint.newer_than(run.snapshot) if exact else "true"
    with _read_again(settings, server, picture, one, run, since, report) as (again, scratch):
        marked = types | {NEWER: "boolean"}
        found = differences(what, relation(again, marked, f"NOT {NEWER}"), bronze, types, one.table.keys, scratch)
        keys = ", ".join(map(identifier, one.table.keys))
        with engine(what, scratch) as connection:
            left = f"(SELECT {keys} FROM {bronze} EXCEPT ALL SELECT {keys} FROM {relation(again, marked)})"
            newer, gone = count(connection, relation(again, marked, NEWER)), count(connection, left)
    return SourceDifference(found, newer, gone, exact)


@contextmanager
def _read_again(
    settings: Settings, server: Postgres, picture: Snapshot, one: ReadPlan, run: Run, newer: str, report: Report
) -> Iterator[tuple[list[str], Path]]:
    """The table as bronze reads it, and, by the SQL `newer`, whether a row was written after the run's snapshot; and a
    folder to work in."""
    marked = replace(one, readings=one.readings | {NEWER: Reading(newer)}, types=one.types | {NEWER: "boolean"})
    reader = Reader(server, picture.exported, run.run, threading.Event(), report)
    with folders.scratch(settings.bronze_path, "reconcile") as folder:
        try:
            part = reader.read(marked, "", folder)
            yield [str(folder / part.name)] if part.rows else [], folder
        finally:
            reader.close()
