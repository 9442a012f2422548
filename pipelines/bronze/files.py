"""Bronze's job where the source is files: takes those that no run has taken, whole, in the order in which they came.

The rows of a file that was taken stay what they are; new ones are added, and proved, without reading the others.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from conf.contract import Table
from conf.settings import Settings
from pipelines.bronze.drift import report_or_refuse
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, QualityFault, SourceFault
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.lake import delta, folders, schema
from pipelines.lake.changes import Selection, Splice, Target, splice, spliced, touched_files, where
from pipelines.lake.checksums import measured
from pipelines.lake.engine import engine, listed, relation
from pipelines.lake.run_log import read_files
from pipelines.lake.runs import IngestedFile, RunContext, TableRun, table_runs
from pipelines.lake.staging import StagedTable, unchanged_table, verify
from pipelines.lake.versions import table_version
from pipelines.sources.files.landing import AUDIT, LandedFile, arrived, ingest, not_ingested, unmatched


@dataclass(frozen=True)
class LandingState:
    """The files that came, in order, those of them that wait, those that are to be taken now, and what was taken."""

    arrived: list[LandedFile]
    waiting: list[LandedFile]
    new: list[LandedFile]
    taken: list[IngestedFile]

    @property
    def present(self) -> list[IngestedFile]:
        """What was taken and still counts, in this order: of a name the last, unless a newer file takes its place."""
        last, newer = {one.name: one for one in self.taken}, {file.name for file in self.new}
        return [one for one in self.taken if last[one.name] == one and one.name not in newer]

    @property
    def known(self) -> dict[str, LandedFile]:
        """The files that were taken and are still there, by name."""
        waiting = {file.name for file in self.waiting}
        return {file.name: file for file in self.arrived if file.name not in waiting}

    @property
    def gone(self) -> list[str]:
        """The names of those that are not there any more."""
        known = self.known
        return [one.name for one in self.present if one.name not in known]


def landing_state(
    settings: Settings, domain: str, tables: tuple[Table, ...], report: Report, at_most: int | None = None
) -> LandingState:
    """What a run of a domain has to take: all files that came, or the first ones. Raises SourceFault where one that was
    taken has other content, or, where files are limited, tells `report`."""
    taken = read_files(settings.bronze_path, domain)
    files = arrived(settings.landing_path / domain, tables)
    some, refused = not_ingested(files, taken, thorough=at_most is None)
    if others := unmatched(settings.landing_path / domain, files):
        report.warning(f"no table takes {', '.join(others[:3])}{' …' * (len(others) > 3)} in {domain}'s landing folder")
    if refused and at_most is None:
        raise SourceFault("; ".join(refused.values()))
    for said in refused.values():
        report.warning(said)
    return LandingState([file for file in files if file not in refused], some, some[:at_most], taken)


def read(
    settings: Settings, intake: LandingState, tables: tuple[Table, ...], call: RunContext, report: Report
) -> Iterator[StagedTable]:
    """Each table with the rows of the files that came for it. Raises ContractFault, SourceFault, QualityFault."""
    before = table_runs(call.previous)
    for table in tables:
        began, done = time.monotonic(), before.get(table.name)
        some = LandingState(
            [file for file in intake.arrived if file.table == table],
            [file for file in intake.waiting if file.table == table],
            [file for file in intake.new if file.table == table],
            [one for one in intake.taken if one.table == table.name],
        )
        path = folders.table_path(settings.bronze_path, table)
        delta.make_folder(path)
        why = whole_because(table, done, table.name in call.full)
        if done and table.name in call.full and (gone := some.gone):
            report.warning(
                f"bronze.{table.name}: not read again: {len(gone):,} of its files, as {gone[0]}, are not there"
            )
            why = ""
        if why:
            built = _whole(table, some, Target(table, path, call.run.run), why, call, report)
        elif done and some.new:
            built = _added(settings, some, done, Target(table, path, call.run.run), call, report)
        else:
            assert done is not None
            yield unchanged_table(done, table, path)
            continue
        try:
            _tell(settings, table, some.taken, built.taken, report)
            known = replace(built.table_run, guaranteed=_guaranteed(table, built), seconds=time.monotonic() - began)
        except BaseException:
            built.discard()
            raise
        yield replace(built, table_run=known)


def whole_because(table: Table, done: TableRun | None, asked: bool) -> str:
    """Why all files are read, those that were taken, too; empty where only new ones are."""
    if done is None:
        return "the first time"
    if asked:
        return "asked for"
    was = {column.name: column.type for column in done.columns}
    return "" if was == schema.types_of(table, AUDIT) else "its columns changed"


def _whole(
    table: Table, intake: LandingState, place: Target, why: str, call: RunContext, report: Report
) -> StagedTable:
    """All files of a table, in the order in which they were taken. Raises ContractFault where one of them is not there
    any more as it was."""
    again, known = intake.present, intake.known
    if gone := intake.gone:
        raise ContractFault(
            f"bronze.{table.name}: {why}, but {len(gone):,} of its files, as {gone[0]}, left the landing folder; "
            "put them back, or leave the table as it was"
        )
    files = [*(known[one.name] for one in again), *intake.new]
    types, taken, names, sums = schema.types_of(table, AUDIT), list[IngestedFile](), list[str](), dict[str, Decimal]()
    if files:
        taken, name, sums = ingest(files, place, 1, report)
        names = [name]
    done = TableRun(table.name, 0, 0, 0, full_at=call.run.started, how=f"full: {why}")
    built = StagedTable(
        done, table, place.path, schema.schema_of(table, AUDIT), names, taken=tuple(taken[len(again) :])
    )
    rows = sum(one.lines for one in taken)
    built = verify(built, types, table.keys, rows, sums)
    if other := [one.name for one, was in zip(taken, again, strict=False) if one.sha256 != was.sha256]:
        built.discard()
        raise SourceFault(f"bronze.{table.name}: {other[0]} changed while it was read; run it again")
    wrong = [one for one, was in zip(taken, again, strict=False) if one.lines != was.lines]
    if wrong and any(column.serial for column in table.columns):
        built.discard()
        said = wrong[0].why or "it has other lines now"
        raise ContractFault(f"bronze.{table.name}: {why}; of {wrong[0].name}: {said}; its rows would get other numbers")
    return replace(built, table_run=replace(built.table_run, rows_in=rows, rows_out=rows))


def _added(
    settings: Settings, intake: LandingState, table_run: TableRun, target: Target, call: RunContext, report: Report
) -> StagedTable:
    """A table with the rows of new files; those of files that they replace leave. Many small data files become one."""
    assert call.previous is not None
    old = table_version(settings.bronze_path, call.previous, target.table)
    first = max((file.first + file.lines for file in intake.taken), default=1)
    taken, name, sums = ingest(intake.new, target, first, report)
    files = f"{len(taken):,} file{'s' if taken[1:] else ''}"
    written = [name]
    try:
        with folders.scratch(target.path, "run") as folder, engine(f"bronze.{target.table.name}", folder) as db:
            rows = relation(target.paths(written), old.types)
            came = measured(db, rows, old.types, old.keys)
            if (came.rows, came.sums) != (sum(file.lines for file in taken), sums):
                raise QualityFault(f"bronze.{target.table.name}: a file does not hold what was read; run it again")
            replaced = _rows_of({file.name for file in taken} & {file.name for file in intake.taken})
            if touched_files(db, old, replaced):
                staged = splice(db, Splice(old, table_run, replaced, rows), target)
                target.remove(written)
            else:
                gone = measured(db, relation([], old.types), old.types, old.keys)
                kept = tuple(Path(file).name for file in old.files)
                table_run = spliced(table_run, gone, came)
                staged = StagedTable(table_run, target.table, target.path, None, written, (), kept)
    except BaseException:
        target.remove(written)
        raise
    how = f"{files}: {staged.table_run.how}"
    return replace(staged, table_run=replace(staged.table_run, how=how), taken=tuple(taken))


def _rows_of(files: set[str]) -> Selection:
    """The rows that came in some landed files."""
    return where(f"_source_file IN ({', '.join(map(duckdb_literal, sorted(files)))})" if files else "false")


def _tell(
    settings: Settings, table: Table, before: list[IngestedFile], taken: tuple[IngestedFile, ...], report: Report
) -> None:
    """What a person should know of the files. Raises ContractFault where one has a column that the first ones had not,
    and the schema is frozen."""
    known = {name for one in before for name in one.extras}
    drifted = [
        f"file {one.name}: column {name} is new, no contract names it"
        for one in taken
        for name in one.extras
        if before and name not in known
    ]
    report_or_refuse(settings, drifted, report)
    twins: dict[str, set[str]] = {}
    for one in (*before, *taken):
        twins.setdefault(one.sha256, set()).add(one.name)
    for one in taken:
        if same := twins.get(one.sha256, set()) - {one.name}:
            report.warning(f"bronze.{table.name}: {one.name} has the content of {min(same)}; its rows came twice")
        if one.why:
            report.warning(f"bronze.{table.name}: no line of {one.name} is a row: {one.why}")


def _guaranteed(table: Table, built: StagedTable) -> tuple[str, ...]:
    """The word "key" where each row has one that no other has. Of texts none: cleaning may make two of them one."""
    keys = [table[key] for key in table.keys]
    if all(key.serial for key in keys):
        return ("key",)
    if any(key.type == "string" for key in keys):
        return ()
    types = {key.name: key.type for key in keys}
    named, whole = listed(types), " AND ".join(f"{identifier(name)} IS NOT NULL" for name in types)
    sql = f"SELECT count(*) = count(DISTINCT ({named})) FILTER (WHERE {whole}) FROM {relation(built.paths, types)}"
    with engine(f"bronze.{table.name}") as db:
        return ("key",) if (db.execute(sql).fetchone() or (False,))[0] else ()
