"""Bronze against its source as it is now, the landing folder's files or PostgreSQL, which is read again."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from conf.contract import Table
from pipelines.bronze.loads import drift, read_plans
from pipelines.commands.reconcile.comparison import DIFFERS, WITH_RUN, WITH_UPSTREAM, Comparison, differing_rows, shown
from pipelines.core import catalogue
from pipelines.core.errors import SourceFault
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.core.texts import few
from pipelines.lake import folders
from pipelines.lake.changes import TECHNICAL, Target
from pipelines.lake.checksums import Difference, differences, measured
from pipelines.lake.engine import count, engine, relation
from pipelines.lake.run_log import read_files
from pipelines.lake.versions import TableVersion
from pipelines.sources.domains import address
from pipelines.sources.files.landing import arrived, hashed, ingest
from pipelines.sources.postgres import fingerprint
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.reader import POSTGRES_AUDIT, Reader, ReadPlan
from pipelines.sources.postgres.snapshot import Snapshot, take_snapshot
from pipelines.sources.postgres.types import Reading

LINE = ("_source_file", "_source_row")  # the key of a line of a file
NEWER = "_lakehouse_newer"


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
        compared = {column: types[column] for column in known}
        # What was rescued is of all columns that may have values in it.
        compared |= {"_rescued": POSTGRES_AUDIT["_rescued"]} if known.keys() == types.keys() else {}
        comparable = replace(plan, readings=known)
        differing, changed = postgres_difference(comparison, snapshot, comparable, head.sql, compared)
        # Rows that only the lake has were deleted since, unless the lake is known to be wrong.
        is_damaged = findings.lines["bronze", name][WITH_RUN] == DIFFERS
        wrong = (shown(each, plan.table) for each in differing if is_damaged or each.kind != "extra")
        problems += [f"is not what the source had: {each}" for each in wrong]
    if changed and not problems:
        findings.notes.append(f"source.{name}: {changed}; `make bronze` reads it")
        findings.lines["bronze", name][WITH_UPSTREAM] = "changed since"


def postgres_difference(
    comparison: Comparison, snapshot: Snapshot, plan: ReadPlan, bronze: str, types: Mapping[str, str]
) -> tuple[list[Difference], str]:
    """How bronze's rows (SQL) differ, in the columns `types`, from the rows that were there before the run's snapshot
    was taken, and, in words, what changed since; no words if nothing differs. Rows that only bronze has may have been
    deleted since."""
    what, keys, settings, run = f"bronze.{plan.table.name}", plan.table.keys, comparison.settings, comparison.run
    facts, _ = fingerprint.table_facts(snapshot.connection, plan, fingerprint.server_facts(snapshot, settings))
    changed = fingerprint.what_changed(run.table(plan.table.name).basis, facts, but=("reading", "software"))
    is_exact = plan.relation.has_xmin and not changed and not fingerprint.went_back(run, snapshot)
    newer = fingerprint.newer_than(run.snapshot) if is_exact else "true"
    marked = replace(plan, readings=plan.readings | {NEWER: Reading(newer)}, types=plan.types | {NEWER: "boolean"})
    reader = Reader(snapshot.server, snapshot.exported, run.run, comparison.report)
    with folders.scratch(settings.bronze_path, "reconcile") as scratch, closing(reader), engine(what, scratch) as db:
        part = reader.read(marked, "", scratch)
        files = [str(scratch / part.name)] if part.rows else []
        rows, rows_newer, rows_older = (
            relation(files, {**types, NEWER: "boolean"}, where) for where in ("true", NEWER, f"NOT {NEWER}")
        )
        if measured(db, rows, types, keys) == measured(db, bronze, types, keys):
            return [], ""
        wrong = differences(db, rows_older, bronze, types, keys)
        if not is_exact:
            return wrong, f"changed since run {run.run}"
        listed, number = ", ".join(map(identifier, keys)), count(db, rows_newer)
        gone = count(db, f"(SELECT {listed} FROM {bronze} EXCEPT ALL SELECT {listed} FROM {rows})")
        since = f"{number:,} row{'s' if number != 1 else ''} written since run {run.run}, {gone:,} gone"
        return wrong, since
