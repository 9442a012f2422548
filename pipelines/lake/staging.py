"""A table's new content before it counts: its files, what DuckDB finds in them, their commit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from conf.contract import Table
from pipelines.core.errors import QualityFault
from pipelines.core.points import Point, crash_point
from pipelines.lake import delta
from pipelines.lake.checksums import evidence
from pipelines.lake.engine import relation
from pipelines.lake.integrity import fingerprint
from pipelines.lake.runs import IngestedFile, Mode, RuleRun, TableRun
from pipelines.lake.versions import TableVersion, superseded_from


@dataclass(frozen=True)
class StagedTable:
    """New content of a table, which nobody sees until it is committed: new files, and those that it keeps of the
    previous version, None when it keeps nothing. `table_run` has the previous version. `taken`: the files that
    its new rows come from, if the source is files."""

    table_run: TableRun
    table: Table
    path: Path
    schema: pa.Schema | None
    files: list[str]
    rules: tuple[RuleRun, ...] = ()
    kept: tuple[str, ...] | None = None
    taken: tuple[IngestedFile, ...] = ()

    @property
    def paths(self) -> list[str]:
        return [str(self.path / file) for file in (*(self.kept or ()), *self.files)]

    @property
    def is_unchanged(self) -> bool:
        """Whether it is the previous version."""
        return self.table_run.mode is Mode.UNCHANGED

    @property
    def content(self) -> TableVersion:
        types = {column.name: column.type for column in self.table_run.columns}
        return TableVersion(tuple(sorted(self.paths)), types, self.table.keys, superseded_from(self.table_run))

    def commit(self) -> TableRun:
        """Makes the files the table's content, without a commit if they are it already. The record with its version."""
        if self.kept is None:
            assert self.schema is not None
            crash_point(Point.TABLE_PROVED)
            version = delta.commit_files(self.path, self.table, self.schema, self.files)
        else:
            before = {file.name for file, _ in delta.actions(self.path, self.table_run.version)}
            removed = sorted(before - set(self.kept))
            if not (removed or self.files):
                return self.table_run
            crash_point(Point.TABLE_PROVED)
            version = delta.commit_changes(self.path, self.table, self.files, removed)
        crash_point(Point.TABLE_COMMITTED)
        return replace(self.table_run, version=version, files=fingerprint(delta.actions(self.path, version)))

    def discard(self) -> None:
        """Removes the files: a run that failed leaves no rows behind."""
        for file in (self.path / name for name in self.files):
            file.unlink(missing_ok=True)


def unchanged_table(table_run: TableRun, table: Table, path: Path, rules: tuple[RuleRun, ...] = ()) -> StagedTable:
    """The content of a table's last version, once more."""
    kept = tuple(file.name for file, _ in delta.actions(path, table_run.version))
    table_run = replace(table_run, seconds=0.0, mode=Mode.UNCHANGED, how="unchanged")
    return StagedTable(table_run, table, path, None, [], rules, kept)


def verify(
    staged: StagedTable, types: Mapping[str, str], keys: tuple[str, ...], rows: int, sums: Mapping[str, Decimal | None]
) -> StagedTable:
    """`staged` with what DuckDB finds in its files. Raises QualityFault unless they have so many rows and these sums,
    to the cent; null stands for no rows to add."""
    name = f"{staged.table.layer}.{staged.table_run.name}"
    try:
        crash_point(Point.FILES_WRITTEN)
        content = evidence(name, relation(staged.paths, types), types, keys)
        wrong = [column for column, total in sums.items() if content.sums[column] != (total or 0)]
        if content.rows != rows:
            problem = f"{rows:,} rows were to arrive, {content.rows:,} did"
        elif wrong:
            problem = f"the sum of {wrong[0]} is another"
        else:
            return replace(staged, table_run=replace(staged.table_run, columns=content.columns))
        raise QualityFault(f"{name}: {problem}; nothing was replaced, run it again")
    except BaseException:
        staged.discard()
        raise
