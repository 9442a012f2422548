"""Bronze without reading everything again: a table's next version from what changed in its source.

Rows are found by `xmin`. A key that is new was written since, so old rows + new keys - rows now were deleted; only if
there are any, keys are compared.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.bronze.loads import LoadPlan, guaranteed
from pipelines.core.errors import QualityFault
from pipelines.core.names import DELETED
from pipelines.core.sql import identifier
from pipelines.core.types import type_of
from pipelines.lake import folders
from pipelines.lake.changes import Selection, Splice, Target, differing_keys, splice, spliced, write
from pipelines.lake.checksums import measured
from pipelines.lake.engine import Engine, count, listed, named_files, relation, within, without
from pipelines.lake.runs import TableRun, row_counts
from pipelines.lake.versions import StagedTable, TableVersion, unchanged_table
from pipelines.sources.postgres.reader import ReadPlan, SourceTotals, WrittenFile

# Batches are folded into one when there are more, or when they replace a larger share of a table's rows.
FOLD_BATCHES, FOLD_SHARE = 30, 0.2

# Reads the rows of a plan that meet a condition into files of a folder.
ReadRows = Callable[[ReadPlan, str, Path], list[WrittenFile]]


class NotProved(Exception):
    """What changed does not give the table that the source counts; the text says why. It has to be loaded in full."""


@dataclass(frozen=True)
class Batch:
    """What the next batch of a table is made from, and where it goes."""

    load: LoadPlan
    old: TableVersion
    totals: SourceTotals
    target: Target
    read: ReadRows


def apply_changes(db: Engine, batch: Batch) -> StagedTable:
    """The table with what changed in its source. Raises NotProved."""
    started, load, target, totals = time.monotonic(), batch.load, batch.target, batch.totals
    assert load.previous is not None
    previous = replace(load.previous, guaranteed=guaranteed(load.plan))
    if not totals.newer and (totals.rows, totals.sums) == (previous.rows_out, previous.totals):
        return unchanged_table(previous, target.table, target.path)
    files = [part.name for part in batch.read(load.plan, load.newer, target.path) if part.rows]
    staged = _staged(db, batch, previous, files)
    if not staged.files:
        return unchanged_table(previous, target.table, target.path)
    return replace(staged, table_run=replace(staged.table_run, seconds=time.monotonic() - started))


def _staged(db: Engine, batch: Batch, previous: TableRun, files: list[str]) -> StagedTable:
    """The table's next version. `files` have the rows that were written since the previous run."""
    load, old, keys, target, totals = batch.load, batch.old, batch.old.keys, batch.target, batch.totals
    rows = relation(target.paths(files), old.types)
    written = db.keep(f"SELECT {listed(keys)} FROM {rows}")
    deleted = previous.rows_out + count(db, without(written, keys, old.sql)) - totals.rows
    if deleted < 0:
        raise NotProved("the source has rows that nobody wrote since it was read last")
    # Somebody may have written a row without changing it, or a transaction may have been open for long.
    differing = differing_keys(within(old.sql, keys, written), rows, old, old)
    changed = db.keep(f"SELECT * FROM {differing}")
    changed_rows, number = within(rows, keys, changed), count(db, changed)
    expected = measured(db, changed_rows, old.types, keys)
    if number < count(db, written):
        only_changed = write(db, changed_rows, target) if number else []
        target.remove(files)
        files = only_changed
        rows = relation(target.paths(files), old.types)
    if deleted:
        with folders.scratch(target.path, "run") as folder:
            gone = without(f"(SELECT {listed(keys)} FROM {old.sql})", keys, _keys(load.plan, folder, batch.read))
            if count(db, gone) != deleted:
                raise NotProved("other rows were deleted than its rows and keys say")
            db.execute(f"INSERT INTO {changed} SELECT * FROM {gone}")
            files.append(_tombstones(db, gone, old, target))
    replaced, came = (measured(db, part, old.types, keys) for part in (within(old.sql, keys, changed), rows))
    if came != expected:
        raise NotProved("a file does not hold what was read")
    counts = row_counts(number, replaced.rows, replaced.rows - deleted)
    table_run = spliced(previous, replaced, came, counts)
    if (table_run.rows_out, table_run.totals) != (totals.rows, totals.sums):
        raise NotProved("its rows or sums are not those that what changed makes")
    table_run = replace(table_run, batches=previous.batches + bool(files), basis=load.basis)
    kept = tuple(Path(file).name for file in old.files)
    staged = StagedTable(table_run, target.table, target.path, files, (), kept, counts=counts)
    return _folded(db, staged, old, target) if files else staged


def _tombstones(db: Engine, gone: str, old: TableVersion, target: Target) -> str:
    """Writes a row marked as deleted for each key of the relation `gone`. The file's name."""
    marks = {"_batch": f"{target.run}::bigint", DELETED: "true"} | {key: identifier(key) for key in old.keys}
    values = {name: marks.get(name, f"NULL::{type_of(kind).duckdb}") for name, kind in old.types.items()}
    items = ", ".join(f"{value} AS {identifier(name)}" for name, value in values.items())
    (file,) = write(db, f"(SELECT {items} FROM {gone})", target)
    return file


def _keys(plan: ReadPlan, folder: Path, read: ReadRows) -> str:
    keys = {key: plan.types[key] for key in plan.table.keys}
    readings = {key: plan.readings[key] for key in keys}
    parts = read(replace(plan, readings=readings, types=keys), "", folder)
    return relation([str(folder / part.name) for part in parts if part.rows], keys)


def _folded(db: Engine, staged: StagedTable, old: TableVersion, target: Target) -> StagedTable:
    """When batches have become many, all earlier than this one are folded into what they rest on. Raises NotProved."""
    table_run = staged.table_run
    if old.base is None:
        return staged
    batched = db.keep(f"SELECT DISTINCT {listed(old.keys)} FROM {old.raw} WHERE _batch > {old.base}")
    if table_run.batches <= FOLD_BATCHES and count(db, batched) <= FOLD_SHARE * table_run.rows_out:
        return staged
    rows_of, file = named_files(old.files, old.types)
    young = f"SELECT {file} FROM {rows_of} GROUP BY {file} HAVING max(_batch) > {old.base}"
    batches = {str(name) for (name,) in db.execute(young).fetchall()}
    resting = TableVersion(tuple(sorted(set(old.files) - batches)), old.types, old.keys)
    rows, columns = measured(db, resting.sql, old.types, old.keys)
    replaced = Selection(old.keys, batched)
    change = Splice(resting, replace(table_run, rows_out=rows, columns=columns), replaced, replaced.of(old.sql))
    try:
        folded = splice(db, change, target)
    except QualityFault as fault:
        raise NotProved("its batches cannot be folded") from fault
    table_run = replace(table_run, base=target.run - 1, batches=1)
    return replace(staged, table_run=table_run, files=[*folded.files, *staged.files], kept=folded.kept)
