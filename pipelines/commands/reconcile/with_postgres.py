"""Compares bronze with the source as it is now: checksums that PostgreSQL and DuckDB compute alike.

A checksum adds 60 bits of md5(key | value) over the rows; values are written the same way on both sides.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path

from psycopg2.extensions import connection as Connection

from conf.contract import DECIMAL, is_summed
from pipelines.commands.reconcile.comparison import Comparison
from pipelines.core.sql import identifier
from pipelines.lake import folders
from pipelines.lake.checksums import Difference, differences
from pipelines.lake.engine import count, engine, relation
from pipelines.sources.postgres import fingerprint
from pipelines.sources.postgres.connection import unhurried
from pipelines.sources.postgres.reader import Reader, ReadPlan
from pipelines.sources.postgres.snapshot import Snapshot
from pipelines.sources.postgres.types import Reading, rescued

NEWER = "_lakehouse_newer"


COLUMNS_PER_QUERY = 400  # a SELECT of PostgreSQL has at most 1664 items


Evidence = dict[str, tuple[str, Decimal | None]]


@dataclass(frozen=True)
class SourceDifference:
    """`wrong`: how bronze differs from the rows that were there before the run's snapshot was taken; rows that only
    bronze has may have been deleted since. `newer`: rows written since; `gone`: rows whose key is gone. `exact`:
    whether it is known which rows are newer."""

    wrong: list[Difference]
    newer: int
    gone: int
    exact: bool = True


def source_evidence(connection: Connection, plan: ReadPlan) -> tuple[int, Evidence]:
    """Rows of a table in the snapshot and the checksum and sum of each column, as PostgreSQL computes them."""
    values = values_of(plan)
    key = ", ".join(f"({values[name]})::text" for name in plan.table.keys)
    rows, evidence = 0, Evidence()
    for columns in _slices(values, COLUMNS_PER_QUERY):
        items = ["count(*)"]
        for name, value in columns:
            digest = f"md5(concat_ws(',', {key}) || '|' || {postgres_text(value, plan.types[name])})"
            items.append(f"coalesce(sum(('x' || left({digest}, 15))::bit(60)::bigint), 0)::text")
            items.append(f"coalesce(sum({value}), 0)" if is_summed(plan.types[name]) else "NULL::numeric")
        with unhurried(connection), connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(items)} FROM {plan.relation.sql}")
            rows, *numbers = cursor.fetchone()
        evidence |= {name: (numbers[2 * index], numbers[2 * index + 1]) for index, (name, _) in enumerate(columns)}
    return rows, evidence


def _slices(values: dict[str, str], size: int) -> Iterator[list[tuple[str, str]]]:
    items = iter(values.items())
    while part := list(islice(items, size)):
        yield part


def values_of(plan: ReadPlan) -> dict[str, str]:
    """The SQL of each column that is compared; `_rescued` only if all columns are that may have values in it."""
    values = {name: reading.value for name, reading in plan.readings.items()}
    return values if plan.partial else values | {"_rescued": rescued(plan.readings)}


def bronze_evidence(what: str, rows: str, plan: ReadPlan) -> tuple[int, Evidence]:
    """The same of a relation (SQL), as DuckDB computes it."""
    names = list(values_of(plan))
    key = ", ".join(f"{identifier(name)}::varchar" for name in plan.table.keys)
    items = ["count(*)"]
    for name in names:
        digest = f"md5(concat_ws(',', {key}) || '|' || {duckdb_text(identifier(name), plan.types[name])})"
        items.append(f"coalesce(sum(('0x' || left({digest}, 15))::bigint), 0)::varchar")
        items.append(f"coalesce(sum({identifier(name)}), 0)" if is_summed(plan.types[name]) else "NULL")
    with engine(what) as connection:
        row = connection.execute(f"SELECT {', '.join(items)} FROM {rows}").fetchone()
    assert row is not None
    total, *numbers = row
    return total, {name: (numbers[2 * index], numbers[2 * index + 1]) for index, name in enumerate(names)}


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


def compare(comparison: Comparison, snapshot: Snapshot, plan: ReadPlan, bronze: str) -> SourceDifference | None:
    """How the source's table differs from bronze's rows (SQL); None if it does not."""
    what, connection = f"bronze.{plan.table.name}", snapshot.connection
    if source_evidence(connection, plan) == bronze_evidence(what, bronze, plan):
        return None
    settings, run = comparison.settings, comparison.run
    types = {name: plan.types[name] for name in values_of(plan)}
    facts, _ = fingerprint.table_facts(connection, plan, fingerprint.server_facts(connection, settings))
    changed = fingerprint.what_changed(run.table(plan.table.name).basis, facts, but=("reading", "software"))
    exact = plan.relation.has_xmin and not changed and not fingerprint.went_back(run, snapshot)
    newer = fingerprint.newer_than(run.snapshot) if exact else "true"
    marked = replace(plan, readings=plan.readings | {NEWER: Reading(newer)}, types=plan.types | {NEWER: "boolean"})
    reader = Reader(snapshot.server, snapshot.exported, run.run, comparison.report)
    with folders.scratch(settings.bronze_path, "reconcile") as scratch, closing(reader):
        part = reader.read(marked, "", scratch)
        files = [str(scratch / part.name)] if part.rows else []
        return _difference(files, bronze, replace(plan, types=types), scratch, exact)


def _difference(files: list[str], bronze: str, plan: ReadPlan, scratch: Path, exact: bool) -> SourceDifference:
    """How `files`, which the source was read into and in which NEWER marks a row, differ from bronze's rows (SQL)."""
    what, keys, marked = f"bronze.{plan.table.name}", plan.table.keys, plan.types | {NEWER: "boolean"}
    listed = ", ".join(map(identifier, keys))
    with engine(what, scratch) as db:
        wrong = differences(db, relation(files, marked, f"NOT {NEWER}"), bronze, plan.types, keys)
        left = f"(SELECT {listed} FROM {bronze} EXCEPT ALL SELECT {listed} FROM {relation(files, marked)})"
        return SourceDifference(wrong, count(db, relation(files, marked, NEWER)), count(db, left), exact)
