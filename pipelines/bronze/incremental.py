"""Bronze without reading everything again: which tables may follow their source by what changed, and how they do.

Rows are found by `xmin`. A key that is new was written since, so old rows + new keys - rows now were deleted; only if
there are any, keys are compared.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from conf.settings import Settings
from pipelines.core.errors import QualityFault
from pipelines.core.names import DELETED
from pipelines.core.sql import identifier
from pipelines.core.types import type_of
from pipelines.lake import folders, full_build
from pipelines.lake.changes import Splice, Target, differing_keys, splice, with_keys, write
from pipelines.lake.checksums import measured
from pipelines.lake.engine import Engine, count, listed, named_files, relation, within, without
from pipelines.lake.runs import Mode, Run, RunContext, TableRun, table_runs
from pipelines.lake.staging import StagedTable, unchanged_table
from pipelines.lake.versions import TableVersion, table_version
from pipelines.sources.postgres import fingerprint
from pipelines.sources.postgres.reader import ReadPlan, WrittenFile
from pipelines.sources.postgres.snapshot import Snapshot

SHARE, BATCHES = 0.2, 30  # of rows that batches may replace, and of batches, before bronze folds them


@dataclass(frozen=True)
class LoadPlan:
    """How a table is loaded: whole, and `why`, or what changed since `before`, where that is empty."""

    plan: ReadPlan
    basis: str
    why: str
    before: TableRun | None


@dataclass(frozen=True)
class SourceTotals:
    """What the source counts in the snapshot: rows, the sums of amounts by column, rows written since the last run."""

    rows: int
    sums: dict[str, Decimal]
    newer: int


# Reads the rows of a plan that meet a condition into files of a folder.
ReadRows = Callable[[ReadPlan, str, Path], list[WrittenFile]]


def plan_loads(settings: Settings, snapshot: Snapshot, plans: list[ReadPlan], call: RunContext) -> list[LoadPlan]:
    """How each table will be loaded: whole where anything could hide a change from `xmin`, or all is old."""
    known = fingerprint.server_facts(snapshot.connection, settings)
    before = table_runs(call.previous)
    back = fingerprint.went_back(call.previous, snapshot) if call.previous else ""
    decided = []
    for one in plans:
        facts, cannot = fingerprint.table_facts(snapshot.connection, one, known)
        done = before.get(one.table.name)
        why = full_build.reason_for_full(settings, done, one.table.name in call.full, call.run.started)
        if done and not why:
            why = cannot or back or fingerprint.what_changed(done.basis, facts)
        decided.append(LoadPlan(one, facts, why, done))
    return decided


def apply_changes(
    db: Engine, settings: Settings, one: LoadPlan, previous: Run, totals: SourceTotals, read: ReadRows, run: int
) -> StagedTable | str:
    """A table with what changed in its source since `previous`; or why that is not what the source counts."""
    table, started = one.plan.table, time.monotonic()
    assert one.before is not None
    old = table_version(settings.bronze_path, previous, table)
    path = folders.table_path(settings.bronze_path, table)
    if not totals.newer and totals.rows == one.before.rows_out and totals.sums == one.before.totals:
        return unchanged_table(one.before, table, path)
    parts = read(one.plan, fingerprint.newer_than(previous.snapshot), path)
    files = [part.name for part in parts if part.rows]
    try:
        built = _followed(db, one, old, totals, files, Target(table, path, run), read)
    except BaseException:
        _remove(path, files)
        raise
    if isinstance(built, str):
        _remove(path, files)
        return built
    if not built.files and set(built.kept or ()) == {Path(file).name for file in old.files}:
        return unchanged_table(one.before, table, path)
    return replace(built, table_run=replace(built.table_run, seconds=time.monotonic() - started))


def _followed(
    db: Engine, one: LoadPlan, old: TableVersion, totals: SourceTotals, files: list[str], place: Target, read: ReadRows
) -> StagedTable | str:
    """`files` has the new rows; it always names what has been written."""
    assert one.before is not None
    keys, before = old.keys, one.before
    name = f'"changed {place.table.name}"'
    batch = relation([str(place.path / file) for file in files], old.types)
    db.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {listed(keys)} FROM {batch}")
    came = count(db, name)
    deleted = before.rows_out + count(db, without(name, keys, old.sql)) - totals.rows
    if deleted < 0:
        return "the source has rows that nobody wrote since it was read last"
    # Somebody may have written a row without changing it, or a transaction may have been open for long.
    really = f'"really {place.table.name}"'
    some = differing_keys(within(old.sql, keys, name), batch, old, old)
    db.execute(f"CREATE OR REPLACE TEMP TABLE {really} AS SELECT * FROM {some}")
    expected = measured(db, within(batch, keys, really), old.types, keys)
    if (differ := count(db, really)) < came:
        written = write(db, within(batch, keys, really), place) if differ else []
        _remove(place.path, files)
        files[:] = written
        batch = relation([str(place.path / file) for file in files], old.types)
    if deleted:
        with folders.scratch(place.path, "run") as folder:
            there = _keys(one.plan, folder, read)
            gone = without(f"(SELECT {listed(keys)} FROM {old.sql})", keys, there)
            if count(db, gone) != deleted:
                return "other rows were deleted than its rows and keys say"
            db.execute(f"INSERT INTO {really} SELECT * FROM {gone}")
            files.append(_tombstones(db, gone, old, place))
    gone_content, batch_content = (
        measured(db, rows, old.types, keys) for rows in (within(old.sql, keys, really), batch)
    )
    if batch_content != expected:
        return "a file does not hold what was read"
    rows, columns = before.content.after(gone_content, batch_content)
    done = replace(
        before,
        rows_in=totals.rows,
        rows_out=rows,
        columns=columns,
        basis=one.basis,
        mode=Mode.CHANGED,
        how=f"{differ:,} written, {deleted:,} deleted",
    )
    if done.rows_out != totals.rows or done.totals != totals.sums:
        return "its rows or sums are not those that what changed makes"
    kept = tuple(Path(file).name for file in old.files)
    if not files:
        return StagedTable(done, place.table, place.path, None, [], (), kept)
    done = replace(done, batches=before.batches + 1)
    try:
        return _folded(db, StagedTable(done, place.table, place.path, None, files, (), kept), old, place)
    except QualityFault:
        return "its batches cannot be folded"


def _tombstones(db: Engine, gone: str, old: TableVersion, place: Target) -> str:
    """Writes a row that says deleted for each key of the relation `gone`. The file's name."""
    said = {"_batch": f"{place.run}::bigint", DELETED: "true"} | {key: identifier(key) for key in old.keys}
    values = (
        f"{said.get(name, f'NULL::{type_of(kind).duckdb}')} AS {identifier(name)}" for name, kind in old.types.items()
    )
    (file,) = write(db, f"(SELECT {', '.join(values)} FROM {gone})", place)
    return file


def _keys(plan: ReadPlan, folder: Path, read: ReadRows) -> str:
    """SQL of all keys that the source has."""
    keys = {key: plan.types[key] for key in plan.table.keys}
    readings = {key: plan.readings[key] for key in keys}
    parts = read(replace(plan, readings=readings, types=keys), "", folder)
    return relation([str(folder / part.name) for part in parts if part.rows], keys)


def _folded(db: Engine, built: StagedTable, old: TableVersion, place: Target) -> StagedTable:
    """Where the batches have become many, all before this one become one with what they rest on."""
    if old.base is None:
        return built
    batches = f'"batches {place.table.name}"'
    later = f"SELECT DISTINCT {listed(old.keys)} FROM {old.raw} WHERE _batch > {old.base}"
    db.execute(f"CREATE OR REPLACE TEMP TABLE {batches} AS {later}")
    if built.table_run.batches <= BATCHES and count(db, batches) <= SHARE * built.table_run.rows_out:
        return built
    rows_of, file = named_files(old.files, old.types)
    young = f"SELECT {file} FROM {rows_of} GROUP BY {file} HAVING max(_batch) > {old.base}"
    late = {str(name) for (name,) in db.execute(young).fetchall()}
    resting = TableVersion(tuple(sorted(set(old.files) - late)), old.types, old.keys)
    rows, columns = measured(db, resting.sql, old.types, old.keys)
    was = replace(built.table_run, rows_out=rows, columns=columns)
    replaced = with_keys(old.keys, batches)
    whole = splice(db, Splice(resting, was, replaced, replaced.of(old.sql)), place)
    done = replace(built.table_run, base=place.run - 1, batches=1)
    return replace(built, table_run=done, files=[*whole.files, *built.files], kept=whole.kept)


def _remove(path: Path, files: list[str]) -> None:
    for name in files:
        (path / name).unlink(missing_ok=True)
