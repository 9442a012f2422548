"""Bronze without reading everything again: a table's next version from what changed in its source.

Rows are found by `xmin`. A key that is new was written since, so old rows + new keys - rows now were deleted; only if
there are any, they are looked for.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.bronze.deletes import Source, deleted_keys
from pipelines.bronze.loads import LoadPlan, guaranteed
from pipelines.core.errors import QualityFault
from pipelines.lake import folders
from pipelines.lake.changes import Selection, Splice, Target, splice_differing
from pipelines.lake.engine import Engine, count, listed, relation, without
from pipelines.lake.versions import StagedTable, TableVersion, unchanged_table
from pipelines.sources.postgres.reader import ReadPlan, SourceTotals, WrittenFile

# Reads the rows of a plan that meet a condition into files of a folder.
ReadRows = Callable[[ReadPlan, str, Path], list[WrittenFile]]


class NotProved(Exception):
    """What changed does not give the table that the source counts; the text says why. It has to be loaded in full."""


@dataclass(frozen=True)
class Batch:
    """What the next version of a table is made from, and where it goes."""

    load: LoadPlan
    old: TableVersion
    totals: SourceTotals
    target: Target
    read: ReadRows
    ask: Callable[[str], list[tuple[Any, ...]]]


def apply_changes(db: Engine, batch: Batch) -> StagedTable:
    """The table with what changed in its source. Raises NotProved."""
    started, load, target, totals = time.monotonic(), batch.load, batch.target, batch.totals
    assert load.previous is not None
    previous = replace(load.previous, guaranteed=guaranteed(load.plan))
    if not totals.newer and (totals.rows, totals.sums) == (previous.rows_out, previous.totals):
        return unchanged_table(previous, target.table, target.path)
    with folders.scratch(target.path, "run") as folder:
        rows = _read(batch, folder, load.plan, load.newer)
        replaced = Selection(batch.old.keys, _affected(db, batch, rows, folder))
        try:
            staged = splice_differing(db, Splice(batch.old, previous, replaced, rows), target)
        except QualityFault as fault:
            raise NotProved("a file does not hold what was read") from fault
    if (staged.table_run.rows_out, staged.table_run.totals) != (totals.rows, totals.sums):
        raise NotProved("its rows or sums are not those that what changed makes")
    if staged.is_unchanged:
        return staged
    return replace(staged, table_run=replace(staged.table_run, basis=load.basis, seconds=time.monotonic() - started))


def _affected(db: Engine, batch: Batch, rows: str, folder: Path) -> str:
    """The keys of `rows`, which were written since the previous run, and of those that were deleted; kept."""
    old = batch.old
    affected = db.keep(f"SELECT {listed(old.keys)} FROM {rows}")
    before = batch.load.previous.rows_out if batch.load.previous else 0
    deleted = before + count(db, without(affected, old.keys, old.sql)) - batch.totals.rows
    if deleted < 0:
        raise NotProved("the source has rows that nobody wrote since it was read last")
    if deleted:
        source = Source(batch.load.plan, batch.ask, partial(_read, batch, folder))
        gone = deleted_keys(db, source, old, affected)
        db.execute(f"INSERT INTO {affected} {gone}")
        if count(db, affected) != count(db, rows) + deleted:
            raise NotProved("other rows were deleted than its rows and keys say")
    return affected


def _read(batch: Batch, folder: Path, plan: ReadPlan, condition: str) -> str:
    """SQL of the rows of a plan that meet a condition, which are read into a folder."""
    parts = batch.read(plan, condition, folder)
    return relation([str(folder / part.name) for part in parts if part.rows], plan.types)
