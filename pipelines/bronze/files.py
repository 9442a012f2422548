"""Bronze's job when the source is files: ingests those that no run has ingested, in the order in which they arrived.

The rows of a file that was ingested stay as they are; those of new files are added, and proved, without reading others.
"""

import time
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from conf.contract import Table
from conf.settings import Settings
from pipelines.bronze.loads import report_or_refuse
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, QualityFault, SourceFault
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.lake import folders, schema
from pipelines.lake.changes import Selection, Splice, Target, splice, spliced, touched_files
from pipelines.lake.checksums import measured
from pipelines.lake.engine import engine, listed, relation
from pipelines.lake.run_log import read_files
from pipelines.lake.runs import IngestedFile, RunContext, TableRun, row_counts, table_runs
from pipelines.lake.versions import StagedTable, TableVersion, table_version, unchanged_table, verify
from pipelines.sources.files.landing import AUDIT, NO_TABLE, LandedFile, arrived, ingest, not_ingested


@dataclass(frozen=True)
class LandingState:
    """Files, in order: the `new` ones in the landing folder, which this run ingests, those that earlier runs
    `ingested`, and which of these are still `there`."""

    new: list[LandedFile]
    there: list[LandedFile]
    ingested: list[IngestedFile]

    def of(self, table: Table) -> "LandingState":
        """What concerns one table."""
        new, there = ([file for file in files if file.table == table] for files in (self.new, self.there))
        return LandingState(new, there, [file for file in self.ingested if file.table == table.name])

    @property
    def current(self) -> list[IngestedFile]:
        """The ingested files that still count, in order: of each name the last, unless a new file takes its place."""
        last, new = {file.name: file for file in self.ingested}, {file.name for file in self.new}
        return [file for file in self.ingested if last[file.name] == file and file.name not in new]

    @property
    def gone(self) -> list[str]:
        """The names of the current files that are no longer in the folder."""
        there = {file.name for file in self.there}
        return [file.name for file in self.current if file.name not in there]


def landing_state(
    settings: Settings, domain: str, tables: tuple[Table, ...], report: Report, at_most: int | None = None
) -> LandingState:
    """What a run of a domain has to ingest: all waiting files, or `at_most` so many. Raises SourceFault if an ingested
    file has other content now; with `at_most` that is a warning."""
    ingested = read_files(settings.bronze_path, domain)
    files, others = arrived(settings.landing_path / domain, tables)
    waiting, refused = not_ingested(files, ingested, thorough=at_most is None)
    for why, names in sorted(others.items()):
        shown = f"{', '.join(sorted(names)[:3])}{' …' * (len(names) > 3)} in {domain}'s landing folder"
        report.warning(f"no table takes {shown}" if why == NO_TABLE else f"not taken is {shown}: {why}")
    if refused and at_most is None:
        raise SourceFault("; ".join(refused.values()))
    for problem in refused.values():
        report.warning(problem)
    not_as_ingested = {file.name for file in (*waiting, *refused)}
    there = [file for file in files if file.name not in not_as_ingested]
    return LandingState(waiting[:at_most], there, ingested)


def read(
    settings: Settings, landing: LandingState, tables: tuple[Table, ...], call: RunContext, report: Report
) -> Generator[StagedTable, None, None]:
    """Yields each table with the rows of its new files. Raises ContractFault, SourceFault, QualityFault."""
    known = table_runs(call.previous)
    for table in tables:
        started, files, previous = time.monotonic(), landing.of(table), known.get(table.name)
        target = Target(table, folders.table_path(settings.bronze_path, table), call.run.run)
        why = reason_for_full(table, previous, table.name in call.full)
        if previous and table.name in call.full and (gone := files.gone):
            problem = f"{len(gone):,} of its files, as {gone[0]}, are not there"
            report.warning(f"bronze.{table.name}: not read again: {problem}")
            why = ""
        if why or previous is None or call.previous is None:
            staged = _in_full(files, target, why, call.run.started, report)
        elif files.new:
            staged = _added(files, previous, table_version(settings.bronze_path, call.previous, table), target, report)
        else:
            yield unchanged_table(previous, table, target.path)
            continue
        _report(settings, staged, files.ingested, report)
        table_run = replace(staged.table_run, guaranteed=_guaranteed(staged), seconds=time.monotonic() - started)
        yield replace(staged, table_run=table_run)


def reason_for_full(table: Table, previous: TableRun | None, asked: bool) -> str:
    """Why all files are read, even those already ingested; empty if only new ones are."""
    if previous is None:
        return "the first time"
    if asked:
        return "asked for"
    types = {column.name: column.type for column in previous.columns}
    return "" if types == schema.types_of(table, AUDIT) else "its columns changed"


def _in_full(landing: LandingState, target: Target, why: str, started: datetime, report: Report) -> StagedTable:
    """A table from all of its files, in the order in which they were ingested. Raises ContractFault if one of them is
    gone or would give other rows."""
    table, again, there = target.table, landing.current, {file.name: file for file in landing.there}
    if gone := landing.gone:
        raise ContractFault(
            f"bronze.{table.name}: {why}, but {len(gone):,} of its files, as {gone[0]}, left the landing folder; "
            "put them back, or leave the table as it was"
        )
    files = [*(there[file.name] for file in again), *landing.new]
    written, ingested, sums = list[str](), list[IngestedFile](), dict[str, Decimal]()
    if files:
        ingested, name, sums = ingest(files, target, 1, report)
        written.append(name)
    rows = sum(file.lines for file in ingested)
    table_run = TableRun(table.name, 0, rows, rows, full_at=started, how=f"full: {why}")
    staged = StagedTable(table_run, table, target.path, written, taken=tuple(ingested[len(again) :]))
    staged = verify(staged, schema.types_of(table, AUDIT), rows, sums)
    for file, earlier in zip(ingested, again, strict=False):
        if file.sha256 != earlier.sha256:
            raise SourceFault(f"bronze.{table.name}: {file.name} changed while it was read; run it again")
        if file.lines != earlier.lines and any(column.serial for column in table.columns):
            problem = f"of {file.name}: {file.why or 'it has other lines now'}; its rows would get other numbers"
            raise ContractFault(f"bronze.{table.name}: {why}; {problem}")
    return staged


def _added(
    landing: LandingState, table_run: TableRun, old: TableVersion, target: Target, report: Report
) -> StagedTable:
    """A table with the rows of new files; rows of files that these replace go. Many small data files become one."""
    what = f"bronze.{target.table.name}"
    first = max((file.first + file.lines for file in landing.ingested), default=1)
    ingested, name, sums = ingest(landing.new, target, first, report)
    with folders.scratch(target.path, "run") as folder, engine(what, folder) as db:
        rows = relation(target.paths([name]), old.types)
        came = measured(db, rows, old.types, old.keys)
        if (came.rows, came.sums) != (sum(file.lines for file in ingested), sums):
            raise QualityFault(f"{what}: a file does not hold what was read; run it again")
        again = sorted({file.name for file in ingested} & {file.name for file in landing.ingested})
        names = f"(SELECT unnest([{', '.join(map(duckdb_literal, again))}]::varchar[]) AS _source_file)"
        replaced = Selection(("_source_file",), names)
        if touched_files(db, old, replaced):
            staged = splice(db, Splice(old, table_run, replaced, rows), target)
            target.remove([name])
        else:
            gone = measured(db, relation([], old.types), old.types, old.keys)
            kept = tuple(Path(file).name for file in old.files)
            table_run = spliced(table_run, gone, came, row_counts(came.rows, 0, 0))
            staged = StagedTable(table_run, target.table, target.path, [name], (), kept)
    how = f"{len(ingested):,} file{'s' if ingested[1:] else ''}: {staged.table_run.how}"
    return replace(staged, table_run=replace(staged.table_run, how=how), taken=tuple(ingested))


def _report(settings: Settings, staged: StagedTable, earlier: list[IngestedFile], report: Report) -> None:
    """Reports columns that earlier files did not have, files with the content of another file, and files without any
    row. Raises ContractFault when there are new columns and the schema is frozen."""
    known = {name for file in earlier for name in file.extras}
    new = [(file, name) for file in staged.taken if earlier for name in file.extras if name not in known]
    drifted = [f"file {file.name}: column {name} is new, no contract names it" for file, name in new]
    report_or_refuse(settings, drifted, report)
    names = defaultdict[str, set[str]](set)
    for file in (*earlier, *staged.taken):
        names[file.sha256].add(file.name)
    for file in staged.taken:
        what = f"bronze.{staged.table.name}"
        if same := names[file.sha256] - {file.name}:
            report.warning(f"{what}: {file.name} has the content of {min(same)}; its rows came twice")
        if file.why:
            report.warning(f"{what}: no line of {file.name} is a row: {file.why}")


def _guaranteed(staged: StagedTable) -> tuple[str, ...]:
    """The word "key" if no two rows have the same key. Never for texts: cleaning may make two of them equal."""
    keys = [staged.table[key] for key in staged.table.keys]
    if all(key.serial for key in keys):
        return ("key",)
    if any(key.type == "string" for key in keys):
        return ()
    types = {key.name: key.type for key in keys}
    named, complete = listed(types), " AND ".join(f"{identifier(name)} IS NOT NULL" for name in types)
    unique = f"count(*) = count(DISTINCT ({named})) FILTER (WHERE {complete})"
    with engine(f"bronze.{staged.table.name}") as db:
        row = db.execute(f"SELECT {unique} FROM {relation(staged.paths, types)}").fetchone()
    return ("key",) if row and row[0] else ()
