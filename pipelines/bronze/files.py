"""Bronze's job when the source is files: ingests those that no run has ingested, in the order in which they arrived.

The rows of a file that was ingested stay as they are; those of new files are added, and proved, without reading others.
"""

import math
import shlex
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import count, islice

from conf.contract import Table
from conf.settings import Settings
from pipelines.bronze.loads import report_or_refuse
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, QualityFault, SourceFault, UsageFault
from pipelines.core.names import AT
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.core.texts import few
from pipelines.lake import folders, schema
from pipelines.lake.changes import TECHNICAL, Selection, Splice, Target, splice
from pipelines.lake.checksums import evidence, measured
from pipelines.lake.engine import HASHING, engine, exact, listed, relation
from pipelines.lake.run_log import read_files
from pipelines.lake.runs import IngestedFile, Run, RunContext, TableRun, table_runs
from pipelines.lake.versions import StagedTable, TableVersion, table_version, unchanged_table, verify
from pipelines.sources.files.landing import AUDIT, NO_TABLE, LandedFile, arrived, hashed, ingest, not_ingested

COLUMNS_SHOWN = 20  # of a file that brings many


@dataclass(frozen=True)
class LandingState:
    """Files, in order: the `new` ones in the landing folder, which this run ingests, those that earlier runs
    `ingested`, and which of these are still `there`. `numbered`: by table, the end of the numbers that lines had."""

    new: list[LandedFile]
    there: list[LandedFile]
    ingested: list[IngestedFile]
    numbered: dict[str, int]

    def of(self, table: Table) -> "LandingState":
        """What concerns one table."""
        new, there = ([file for file in files if file.table == table] for files in (self.new, self.there))
        return replace(self, new=new, there=there, ingested=[it for it in self.ingested if it.table == table.name])

    @property
    def current(self) -> list[IngestedFile]:
        """The ingested files that still count, in order: of each name the last, unless a new file takes its place."""
        last, new = {file.name: file for file in self.ingested}, {file.name for file in self.new}
        return [file for file in self.ingested if last[file.name] == file and file.name not in new]

    @property
    def again(self) -> list[LandedFile]:
        """The new files that replace an ingested one."""
        known = {file.name for file in self.ingested}
        return [file for file in self.new if file.name in known]

    @property
    def gone(self) -> list[str]:
        """The names of the current files that are no longer in the folder."""
        there = {file.name for file in self.there}
        return [file.name for file in self.current if file.name not in there]


def landing_state(
    settings: Settings, domain: str, report: Report, at_most: int | None = None, replaced: str = ""
) -> LandingState:
    """What a run of a domain has to ingest: all waiting files, or `at_most` so many. Raises SourceFault if an ingested
    file has other content now, unless `replaced` is or matches its name; with `at_most` that is a warning."""
    folder, ingested = settings.landing_path / domain, read_files(settings.bronze_path, domain)
    files, others = arrived(folder, catalogue.tables_of("bronze", domain))
    named = {file.name for file in files if file.name == replaced or fnmatchcase(file.name, replaced)}
    if replaced and not named:
        problem = f"REPLACE={replaced} (--replace) names no file that a table of {domain} takes from {folder}"
        raise UsageFault(f"{problem}; an empty file counts as not yet delivered")
    waiting, changed = not_ingested(files, ingested, at_most is None, named)
    for why, names in sorted(others.items()):
        shown = f"{few(sorted(names))} in {domain}'s landing folder"
        report.warning(f"no table takes {shown}" if why == NO_TABLE else f"not taken is {shown}: {why}")
    if changed and at_most is None:
        raise SourceFault(_changed(domain, changed))
    if changed:
        report.warning(_changed(domain, changed))
    not_as_ingested = {file.name for file in (*waiting, *changed)}
    there = [file for file in files if file.name not in not_as_ingested]
    return _numbered(settings, domain, LandingState(waiting, there, ingested, {}), at_most, report)


def _changed(domain: str, changed: Mapping[LandedFile, str]) -> str:
    """What became of files that were taken, and the command that ends with each of their lines once."""
    (name, *others), (problem, *_) = [file.name for file in changed], changed.values()
    if others:
        problem = f"{few([name, *others])} in {domain}'s landing folder were taken before and have other content now"
    command = f"make bronze silver gold DOMAIN={domain} REPLACE={shlex.quote('*' if others else name)}"
    return f"{problem}; put back what they had, or replace their rows by what they have: `{command}`"


def _numbered(settings: Settings, domain: str, landing: LandingState, size: int | None, report: Report) -> LandingState:
    """The new files, at most `size` of them. First come those whose lines were given numbers, by what silver and bronze
    recorded before bronze was deleted or restored, in the order of these. Reports which lines are numbered anew, and
    whose rows are gone."""
    layers = (settings.silver_path, settings.bronze_path) if landing.new else ()
    records = [record for layer in layers for record in read_files(layer, domain, every=True)]
    taken = {(record.table, record.name, record.sha256): record.numbers for record in records}
    firsts, numbered = {(record.table, record.name): record.first for record in records}, dict[str, int]()
    for record in records:
        numbered[record.table] = max(numbered.get(record.table, 1), *(span.stop for span in record.numbers))
    new, anew, known = list[LandedFile](), defaultdict[str, list[str]](list), {file.name for file in landing.ingested}
    waiting = sorted(landing.new, key=lambda file: firsts.get((file.table.name, file.name), math.inf))
    batch = {file.name for file in waiting[:size]}
    for file in landing.new:
        table = file.table.name
        sha256 = hashed(file) if (table, file.name) in firsts and file.name in batch else ""
        if numbers := taken.get((table, file.name, sha256)):
            file = replace(file, sha256=sha256, numbers=numbers)
        elif _serial(file.table) and file.name not in known and (sha256 or table not in numbered):
            anew[table].append(file.name)
        new += [file] * (file.name in batch)
    for table, names in anew.items():
        if names[1:] or table in numbered:
            order = "ids are given anew, in the order in which the files were last changed, then of their names"
            report.warning(f"bronze.{table}: {order}: {few(names)}; those of an earlier lake may have been others")
    if not known and (gone := sorted({name for _, name in firsts} - {file.name for file in landing.new})):
        report.warning(f"rows of files that left {domain}'s landing folder went with the earlier bronze: {few(gone)}")
    new.sort(key=lambda file: file.numbers[0].start if file.numbers else math.inf)
    return replace(landing, new=new, numbered=numbered)


def read(
    settings: Settings, landing: LandingState, tables: tuple[Table, ...], call: RunContext, report: Report
) -> Generator[StagedTable, None, None]:
    """Yields each table with the rows of its new files. Raises ContractFault, SourceFault, QualityFault."""
    known, taken = table_runs(call.previous), list[IngestedFile]()
    for table in tables:
        started, files, previous = time.monotonic(), landing.of(table), known.get(table.name)
        target = Target(table, folders.table_path(settings.bronze_path, table), call.run.run)
        old = table_version(settings.bronze_path, call.previous, table) if previous and call.previous else None
        if previous and old and call.previous:
            previous = _as_recorded_now(previous, old, call.previous, report)
        why = reason_for_full(table, previous, table.name in call.full)
        if previous and table.name in call.full and (gone := files.gone):
            problem = f"{len(gone):,} of its files, as {gone[0]}, are not there"
            report.warning(f"bronze.{table.name}: not read again: {problem}")
            why = ""
        if old and _serial(table) and files.again:
            files = replace(files, new=_renumbered(files, old, target))
        if why or previous is None or old is None:
            staged = _in_full(files, target, why, call.run.started, report)
        elif files.new:
            staged = _added(files, previous, old, target, report)
        else:
            yield unchanged_table(previous, table, target.path)
            continue
        _report(settings, staged, files, report)
        taken += staged.taken
        table_run = replace(staged.table_run, guaranteed=_guaranteed(staged), seconds=time.monotonic() - started)
        yield replace(staged, table_run=table_run)
    landed = arrived(settings.landing_path / call.run.domain, tables)[0] if taken else []
    if changed := not_ingested(landed, taken, thorough=False)[1]:
        report.warning(_changed(call.run.domain, changed))


def _as_recorded_now(previous: TableRun, old: TableVersion, run: Run, report: Report) -> TableRun:
    """The record of a table that a run of an earlier release may have made, as this release would have."""
    columns = tuple(column for column in previous.columns if column.name in old.types)
    if columns != previous.columns:
        report.step(f"bronze.{previous.name}: an earlier release marked rows as deleted; this column goes")
    if run.hashing != HASHING:
        columns = evidence(f"bronze.{previous.name}", old.sql, old.types, old.keys).columns
    return replace(previous, columns=columns)


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
        left = f"{len(gone):,} of its files, as {gone[0]}, left the landing folder"
        raise ContractFault(f"bronze.{table.name}: {why}, but {left}; put them back, or leave the table as it was")
    files = [*(replace(there[file.name], sha256=file.sha256, numbers=file.numbers) for file in again), *landing.new]
    written, ingested, sums = list[str](), list[IngestedFile](), dict[str, Decimal]()
    if files:
        ingested, name, sums = ingest(files, target, landing.numbered.get(table.name, 1), report)
        written.append(name)
    rows = sum(file.lines for file in ingested)
    table_run = TableRun(table.name, 0, rows, rows, full_at=started, how=f"full: {why}")
    others = [(file, it) for file, it in zip(ingested, again, strict=False) if file.lines != it.lines]
    taken = [*(file for file, _ in others), *ingested[len(again) :]]
    staged = StagedTable(table_run, table, target.path, written, taken=tuple(taken))
    staged = verify(staged, schema.types_of(table, AUDIT), rows, sums)
    for file, earlier in others:
        if earlier.bad < earlier.lines and _serial(table):  # another row may name the number of a row
            problem = f"of {file.name}: {file.why or 'it has other lines now'}; its rows would get other numbers"
            raise ContractFault(f"bronze.{table.name}: {why}; {problem}")
    return staged


def _added(
    landing: LandingState, table_run: TableRun, old: TableVersion, target: Target, report: Report
) -> StagedTable:
    """A table with the rows of new files; rows of files that these replace go. Many small data files become one."""
    what = f"bronze.{target.table.name}"
    ingested, name, sums = ingest(landing.new, target, landing.numbered.get(target.table.name, 1), report)
    with folders.scratch(target.path, "run") as folder, engine(what, folder) as db:
        rows = relation(target.paths([name]), old.types)
        came = measured(db, rows, old.types, old.keys)
        if (came.rows, came.sums) != (sum(file.lines for file in ingested), sums):
            raise QualityFault(f"{what}: a file does not hold what was read; run it again")
        again = ", ".join(duckdb_literal(file.name) for file in landing.again)
        names = f"(SELECT unnest([{again}]::varchar[]) AS _source_file)"
        replaced = Selection(("_source_file",), names)
        staged = splice(db, Splice(old, table_run, replaced, rows), target)
        target.remove([name])
    how = f"{len(ingested):,} file{'s' if ingested[1:] else ''}: {staged.table_run.how}"
    return replace(staged, table_run=replace(staged.table_run, how=how), taken=tuple(ingested))


def _report(settings: Settings, staged: StagedTable, landing: LandingState, report: Report) -> None:
    """Reports columns that earlier files did not have, files with the content of another file, and files without any
    row. Raises ContractFault when there are new columns and the schema is frozen, as it is behind the first files."""
    earlier, what, drifted = landing.ingested, f"bronze.{staged.table.name}", list[str]()
    known = {name for file in earlier for name in file.extras}
    for file in staged.taken:
        new = [name or "without a name" for name in file.extras if name not in known]
        drifted += [f"file {file.name}: column {name} is new, no contract names it" for name in new[:COLUMNS_SHOWN]]
        if rest := new[COLUMNS_SHOWN:]:
            drifted.append(f"file {file.name}: {len(rest):,} more columns are new, no contract names them")
        known.update(file.extras)
    report_or_refuse(bool(earlier) and settings.schema_drift == "freeze", drifted, report)
    originals = {file.sha256: file.name for file in reversed((*landing.current, *staged.taken))}
    if copies := {file.name: same for file in staged.taken if (same := originals[file.sha256]) != file.name}:
        has, its = ("have", "their") if len(copies) > 1 else ("has", "its")
        same = few([*dict.fromkeys(copies.values())])
        report.warning(f"{what}: {few([*copies])} {has} the content of {same}; {its} rows came twice")
    if unread := {file.name: file.why for file in staged.taken if file.why}:
        reasons = few([*dict.fromkeys(unread.values())])
        report.warning(f"{what}: no line of {few([*unread])} is a row: {reasons}")


def _renumbered(landing: LandingState, old: TableVersion, target: Target) -> list[LandedFile]:
    """The new files of a table with serial numbers. In those that are taken again, with other content, each line that
    is there keeps its number, wherever it is now, or else has the number that it had when bronze had that content
    before; others get numbers after all that were ever given."""
    table, first, again = target.table, landing.numbered[target.table.name], landing.again
    types = {name: kind for name, kind in schema.types_of(table, AUDIT).items() if old.types.get(name) == kind}
    serial = next(column.name for column in table.columns if column.serial)
    line = ", ".join(exact(*it) for it in types.items() if it[0] not in (serial, "_source_row", *TECHNICAL))
    line = line.replace('"_rescued"', f"regexp_replace(_rescued, ', \"{AT}\": \".*', '')")  # a bad line's place
    names, numbered = ", ".join(duckdb_literal(file.name) for file in again), dict[str, LandedFile]()
    with folders.scratch(target.path, "run") as folder, engine(f"bronze.{table.name}", folder) as db:
        records, name, _ = ingest(again, Target(table, folder, target.run), first, Report(quiet=True))
        was = relation(old.files, types, f"_source_file IN ({names})")
        lines = f"SELECT {identifier(serial)} AS number, hash({line}) AS line, _source_file, _source_row FROM"
        nth = "row_number() OVER (PARTITION BY line ORDER BY"
        pairs = db.execute(
            f"""WITH was AS ({lines} {was}), now AS ({lines} {relation([f"{folder}/{name}"], types)}),
            had AS (SELECT number, line, 1 AS age FROM was UNION ALL SELECT number, line, 2 FROM now
                    WHERE number < {first} AND number NOT IN (SELECT number FROM was))
            SELECT had.number FROM (SELECT *, {nth} _source_row) AS nth FROM now) AS came
            LEFT JOIN (SELECT *, {nth} age, number) AS nth FROM had) AS had USING (line, nth)
            ORDER BY list_position([{names}], _source_file), _source_row"""
        )
        others = count(first)
        given = (next(others) if number is None else number for (number,) in iter(pairs.fetchone, None))
        for file, record in zip(again, records, strict=True):
            numbered[file.name] = replace(file, sha256=record.sha256, numbers=_ranges(islice(given, record.lines)))
    return [numbered.get(file.name, file) for file in landing.new]


def _ranges(numbers: Iterable[int]) -> tuple[range, ...]:
    ranges = list[range]()
    for number in numbers:
        follows = ranges and ranges[-1].stop == number
        ranges.append(range(ranges.pop().start if follows else number, number + 1))
    return tuple(ranges)


def _serial(table: Table) -> bool:
    return any(column.serial for column in table.columns)


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
