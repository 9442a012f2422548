"""Bronze against its source as it is now: the landing folder's files, or PostgreSQL, by a checksum that PostgreSQL and
DuckDB compute alike: 60 bits of md5(key, value), added over the rows."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from conf.contract import DECIMAL, Table, is_summed
from pipelines.bronze.loads import drift, read_plans
from pipelines.commands.reconcile.comparison import DIFFERS, WITH_RUN, WITH_UPSTREAM, Comparison, differing_rows, shown
from pipelines.core import catalogue
from pipelines.core.errors import SourceFault
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.core.texts import few
from pipelines.lake import folders
from pipelines.lake.changes import TECHNICAL, Target
from pipelines.lake.checksums import Difference, differences
from pipelines.lake.engine import count, engine, relation
from pipelines.lake.run_log import read_files
from pipelines.lake.versions import TableVersion
from pipelines.sources.domains import address
from pipelines.sources.files.landing import arrived, hashed, ingest
from pipelines.sources.postgres import fingerprint
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.reader import POSTGRES_AUDIT, Reader, ReadPlan
from pipelines.sources.postgres.snapshot import Snapshot, take_snapshot
from pipelines.sources.postgres.types import Reading, rescued

LINE = ("_source_file", "_source_row")  # the key of a line of a file
NEWER = "_lakehouse_newer"
COLUMNS_PER_QUERY = 400  # a SELECT of PostgreSQL has at most 1664 items

POSTGRES, DUCKDB = range(2)  # places in the pairs of SQL that follow
# The first 60 bits of a text's hash, in any encoding of the database.
BITS = ("('x' || left(md5(convert_to({}, 'UTF8')), 15))::bit(60)::bigint", "('0x' || left(md5({}), 15))::bigint")
# How PostgreSQL and DuckDB write a value of a type of bronze alike.
TEXTS = {
    "float": ("('x' || encode(float4send({}), 'hex'))::bit(32)::int::text", "({}::bit)::integer::varchar"),
    "double": ("('x' || encode(float8send({}), 'hex'))::bit(64)::bigint::text", "({}::bit)::bigint::varchar"),
    "binary": ("encode({}, 'hex')", "lower(hex({}))"),
    "timestamp": ("(extract(epoch FROM ({})) * 1000000)::bigint::text", "epoch_us({})::varchar"),
}
TEXT = ("({})::text", "{}::varchar")  # of the other types


def compare_with_source(comparison: Comparison) -> None:
    """Compares all tables. Raises SourceFault if the source cannot be read, or is not the source that the run read."""
    settings, run, findings = comparison.settings, comparison.run, comparison.findings
    tables, source = catalogue.tables_of("bronze", run.domain), address(settings, run.domain)
    if source != run.source:
        raise SourceFault(f"run {run.run} read {run.source}, the settings name {source}: bronze was not compared")
    if catalogue.is_of_files(run.domain):
        for table in tables:
            comparison.report.progress("source", table.name)
            with findings.comparing("bronze", table.name, WITH_UPSTREAM, "compared with its files") as problems:
                wrong = file_differences(comparison, table, comparison.head(run.table(table.name)))
                problems += [f"is not what its files have: {each}" for each in wrong]
        return
    names = [table.source_name for table in tables]
    with source_server(settings) as server, take_snapshot(server, settings.schema_name, names) as snapshot:
        for plan in read_plans(snapshot, tables):
            comparison.report.progress("source", plan.table.name)
            _with_postgres(comparison, snapshot, plan)


def file_differences(comparison: Comparison, table: Table, head: TableVersion) -> list[Difference]:
    """The rows in which bronze differs from its files, read again; notes what could not be compared."""
    settings = comparison.settings
    landed = {file.name: file for file in arrived(settings.landing_path / table.domain, [table])[0]}
    # Of a file that was ingested more than once, the last time counts.
    ingested = {file.name: file for file in read_files(settings.bronze_path, table.domain) if file.table == table.name}
    fresh, missing = dict[str, Path](), list[str]()
    types = {name: kind for name, kind in head.types.items() if name not in TECHNICAL}
    with folders.scratch(settings.bronze_path, "reconcile") as scratch:
        for name, record in ingested.items():
            file = landed.get(name)
            if file and hashed(file) == record.sha256:
                file = replace(file, numbers=record.numbers)
                fresh[name] = scratch / ingest([file], Target(table, scratch, 0), 1, comparison.report)[1]
            else:
                missing.append(name)
        if missing:
            note = f"source.{table.name}: not compared, because the file is gone or has changed: {few(missing)}"
            comparison.findings.notes.append(note)
        if not fresh:
            return []
        expected = relation([str(path) for path in fresh.values()], types)
        actual = f"(SELECT * FROM {head.sql} WHERE _source_file IN ({', '.join(map(duckdb_literal, fresh))}))"
        with engine(f"bronze.{table.name}", scratch) as db:
            return differing_rows(db, expected, actual, types, LINE)


def _with_postgres(comparison: Comparison, snapshot: Snapshot, plan: ReadPlan) -> None:
    findings, run, name = comparison.findings, comparison.run, plan.table.name
    table_run = run.table(name)
    findings.notes += [f"{text}, since run {run.run}" for text in drift(plan, table_run)]
    types = {column.name: column.type for column in table_run.columns if column.name not in POSTGRES_AUDIT}
    if not types:
        return  # compare_with_run reported it
    known = {column: reading for column, reading in plan.readings.items() if types.get(column) == plan.types[column]}
    changed = ""
    with findings.comparing("bronze", name, WITH_UPSTREAM, "compared with the source") as problems:
        head = comparison.head(table_run)
        comparable = replace(plan, readings=known, partial=known.keys() != types.keys())
        differing, changed = postgres_difference(comparison, snapshot, comparable, head.sql)
        # Rows that only the lake has were deleted since, unless the lake is known to be wrong.
        is_damaged = findings.lines["bronze", name][WITH_RUN] == DIFFERS
        wrong = (shown(each, plan.table) for each in differing if is_damaged or each.kind != "extra")
        problems += [f"is not what the source had: {each}" for each in wrong]
    if changed and not problems:
        findings.notes.append(f"source.{name}: {changed}; `make bronze` reads it")
        findings.lines["bronze", name][WITH_UPSTREAM] = "changed since"


def postgres_difference(
    comparison: Comparison, snapshot: Snapshot, plan: ReadPlan, bronze: str
) -> tuple[list[Difference], str]:
    """How bronze's rows (SQL) differ from the rows that were there before the run's snapshot was taken, and, in words,
    what changed since; no words if nothing differs. Rows that only bronze has may have been deleted since."""
    what, connection, keys = f"bronze.{plan.table.name}", snapshot.connection, plan.table.keys
    if _agree(snapshot, what, bronze, plan):
        return [], ""
    settings, run = comparison.settings, comparison.run
    facts, _ = fingerprint.table_facts(connection, plan, fingerprint.server_facts(snapshot, settings))
    changed = fingerprint.what_changed(run.table(plan.table.name).basis, facts, but=("reading", "software"))
    is_exact = plan.relation.has_xmin and not changed and not fingerprint.went_back(run, snapshot)
    newer = fingerprint.newer_than(run.snapshot) if is_exact else "true"
    marked = replace(plan, readings=plan.readings | {NEWER: Reading(newer)}, types=plan.types | {NEWER: "boolean"})
    reader = Reader(snapshot.server, snapshot.exported, run.run, comparison.report)
    with folders.scratch(settings.bronze_path, "reconcile") as scratch, closing(reader), engine(what, scratch) as db:
        part = reader.read(marked, "", scratch)
        files = [str(scratch / part.name)] if part.rows else []
        types = {name: plan.types[name] for name in _values(plan)}
        rows, rows_newer, rows_older = (
            relation(files, types | {NEWER: "boolean"}, where) for where in ("true", NEWER, f"NOT {NEWER}")
        )
        wrong = differences(db, rows_older, bronze, types, keys)
        if not is_exact:
            return wrong, f"changed since run {run.run}"
        listed, number = ", ".join(map(identifier, keys)), count(db, rows_newer)
        gone = count(db, f"(SELECT {listed} FROM {bronze} EXCEPT ALL SELECT {listed} FROM {rows})")
        since = f"{number:,} row{'s' if number != 1 else ''} written since run {run.run}, {gone:,} gone"
        return wrong, since


def _agree(snapshot: Snapshot, what: str, bronze: str, plan: ReadPlan) -> bool:
    """Whether PostgreSQL counts of the source in the snapshot what DuckDB counts of bronze (SQL): rows, and each
    column's checksum and sum."""
    values = _values(plan)
    with engine(what) as db:
        theirs = _queries(plan, values, plan.relation.sql, POSTGRES)
        ours = _queries(plan, {name: identifier(name) for name in values}, bronze, DUCKDB)
        return all(
            snapshot.rows(source_query) == db.execute(query).fetchall()
            for source_query, query in zip(theirs, ours, strict=True)
        )


def _values(plan: ReadPlan) -> dict[str, str]:
    """The SQL of each column that is compared; `_rescued` only if all columns are that may have values in it."""
    values = {name: reading.value for name, reading in plan.readings.items()}
    return values if plan.partial else values | {"_rescued": rescued(plan.readings)}


def _queries(plan: ReadPlan, values: Mapping[str, str], rows: str, dialect: int) -> Iterator[str]:
    """Queries that PostgreSQL and DuckDB answer alike for the same rows: their number, and of each column, whose SQL is
    in `values`, the checksum and the sum."""
    key = " || ".join(_key_text(plan.types[name], values[name], dialect) for name in plan.table.keys)
    for start in range(0, len(values), COLUMNS_PER_QUERY):
        items = ["count(*)"]
        for name, value in islice(values.items(), start, start + COLUMNS_PER_QUERY):
            number = BITS[dialect].format(f"{key} || {_text(plan.types[name], value, dialect)}")
            items.append(f"coalesce(sum({number}), 0)::text")
            items.append(f"coalesce(sum({value}), 0)" if is_summed(plan.types[name]) else "NULL")
        yield f"SELECT {', '.join(items)} FROM {rows}"


def _text(kind: str, value: str, dialect: int) -> str:
    """The SQL of the text of a value of bronze's type `kind`, which PostgreSQL and DuckDB write alike."""
    texts = TEXTS.get(kind, TEXT)
    if (match := DECIMAL.fullmatch(kind)) and match[1] == match[2]:
        texts = (r"regexp_replace(({})::text, '^(-?)0\.', '\1.')", TEXT[1])
    return texts[dialect].format(value)


def _key_text(kind: str, value: str, dialect: int) -> str:
    """The same of a part of a key, null or not, with an end that no other part has within it."""
    text = _text(kind, value, dialect)
    if kind == "string":
        text = rf"replace(replace({text}, '\', '\\'), ',', '\,')"
    return rf"coalesce({text}, '\N') || ','"
