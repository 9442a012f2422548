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
from pipelines import lake
from pipelines.connection import unhurried
from pipelines.duck import Difference, differences, engine, parquet
from pipelines.pg_types import Reading, rescued
from pipelines.reader import Plan, Reader
from pipelines.records import Run
from pipelines.report import Report
from pipelines.source import Snapshot
from pipelines.sql import quoted

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


def source_evidence(connection: Connection, one: Plan) -> tuple[int, Evidence]:
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


def values_of(one: Plan) -> dict[str, str]:
    """The SQL of each column that is compared; `_rescued` only where all columns are that it may tell of."""
    values = {name: reading.value for name, reading in one.readings.items()}
    return values if one.partial else values | {"_rescued": rescued(one.readings)}


def bronze_evidence(what: str, files: list[str], one: Plan) -> tuple[int, Evidence]:
    """The same of Parquet files, as DuckDB computes it."""
    names = list(values_of(one))
    if not files:
        return 0, {name: ("0", Decimal(0) if is_summed(one.types[name]) else None) for name in names}
    key = ", ".join(f"{quoted(name)}::varchar" for name in one.table.keys)
    items = ["count(*)"]
    for name in names:
        digest = f"md5(concat_ws(',', {key}) || '|' || {duckdb_text(quoted(name), one.types[name])})"
        items.append(f"coalesce(sum(('0x' || left({digest}, 15))::bigint), 0)::varchar")
        items.append(f"coalesce(sum({quoted(name)}), 0)" if is_summed(one.types[name]) else "NULL")
    with engine(what) as connection:
        found = connection.execute(f"SELECT {', '.join(items)} FROM read_parquet($files)", {"files": files}).fetchone()
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
    settings: Settings, server: Postgres, picture: Snapshot, one: Plan, files: list[str], run: Run, report: Report
) -> SourceDifference | None:
    """How the source's table differs from bronze's files, which `run` read; None where it does not."""
    what = f"bronze.{one.table.name}"
    now, then = source_evidence(picture.connection, one), bronze_evidence(what, files, one)
    if now == then:
        return None
    types = {name: one.types[name] for name in values_of(one)}
    oldest = f"'{int(run.snapshot.split(':')[0]) % 2**32}'::xid"
    exact = one.relation.has_xmin and not _shape_changed(picture.connection, one, oldest)
    newer_sql = f"age(xmin) <= age({oldest})" if exact else "true"
    with _read_again(settings, server, picture, one, run, newer_sql, report) as again:
        old, all_rows = (parquet(again, files, f"NOT {NEWER}"), parquet(again, files)) if again else ("", "")
        actual = parquet(files, again)
        if not again:
            return SourceDifference([], 0, then[0], exact)
        scratch = Path(again[0]).parent
        found = differences(what, old, actual, types, one.table.keys, scratch)
        keys = ", ".join(map(quoted, one.table.keys))
        with engine(what, scratch) as connection:
            newer = connection.execute(f"SELECT count(*) FROM {all_rows} WHERE {NEWER}").fetchone()
            gone = connection.execute(
                f"SELECT count(*) FROM (SELECT {keys} FROM {actual} EXCEPT ALL SELECT {keys} FROM {all_rows})"
            ).fetchone()
    return SourceDifference(found, newer[0] if newer else 0, gone[0] if gone else 0, exact)


# A column may come with a default, a label be renamed, a partition be attached without a row being written. A server
# that was restored counts its transactions anew.
SHAPE = """
SELECT age({oldest}) < 0 OR EXISTS (
  WITH RECURSIVE part AS (
    SELECT %(name)s::regclass::oid AS oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN part p ON i.inhparent = p.oid)
  SELECT FROM part p JOIN pg_class c USING (oid) WHERE age(c.xmin) <= age({oldest})
  UNION ALL SELECT FROM part p JOIN pg_attribute a ON a.attrelid = p.oid WHERE age(a.xmin) <= age({oldest})
  UNION ALL SELECT FROM part p JOIN pg_inherits i ON i.inhparent = p.oid WHERE age(i.xmin) <= age({oldest})
  UNION ALL SELECT FROM pg_enum e WHERE age(e.xmin) <= age({oldest}))
"""


def _shape_changed(connection: Connection, one: Plan, oldest: str) -> bool:
    """Whether the table itself may be another than when the run read it: then no row's age says anything."""
    with connection.cursor() as cursor:
        cursor.execute(SHAPE.format(oldest=oldest), {"name": one.relation.sql})
        return bool(cursor.fetchone()[0])


@contextmanager
def _read_again(
    settings: Settings, server: Postgres, picture: Snapshot, one: Plan, run: Run, newer: str, report: Report
) -> Iterator[list[str]]:
    """The table as bronze reads it, and, by the SQL `newer`, whether a row was written after the run's snapshot."""
    marked = replace(one, readings=one.readings | {NEWER: Reading(newer)}, types=one.types | {NEWER: "boolean"})
    reader = Reader(server, picture.exported, run.run, threading.Event(), report)
    with lake.scratch(settings.bronze_path, "reconcile") as folder:
        try:
            part = reader.read(marked, "", folder)
            yield [str(folder / part.name)] if part.rows else []
        finally:
            reader.close()
