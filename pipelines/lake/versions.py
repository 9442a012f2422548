"""A version of a table: its rows, as SQL that both DuckDB and Spark understand, and the next one before it counts.

Bronze appends what changed, as batches. Of a key the row in its last batch counts; none if that one is deleted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from conf.contract import Table
from pipelines.core.errors import QualityFault
from pipelines.core.names import DELETED
from pipelines.core.points import Point, crash_point
from pipelines.core.sql import identifier
from pipelines.lake import commits, delta, schema
from pipelines.lake.checksums import evidence
from pipelines.lake.engine import engine, relation
from pipelines.lake.runs import IngestedFile, Mode, RowCounts, RuleRun, Run, TableRun


@dataclass(frozen=True)
class TableVersion:
    """The data files of a version, the columns that count (name to Spark SQL type) and the key. `base`: the run after
    which batches replace rows; None when none does."""

    files: tuple[str, ...]
    types: Mapping[str, str]
    keys: tuple[str, ...]
    base: int | None = None

    @property
    def raw(self) -> str:
        """SQL of all rows, superseded ones, too."""
        return relation(self.files, self.types)

    @property
    def sql(self) -> str:
        """SQL of the rows that count."""
        if self.base is None:
            return self.raw
        return f"({latest_rows(self.raw, tuple(self.types), self.keys, self.base, identifier)})"

    def only(self, files: set[str]) -> "TableVersion":
        """The rows of some of the files, when no batch replaces rows of another."""
        return replace(self, files=tuple(sorted(files)))


def table_version(layer_path: Path, run: Run, table: Table, name: str = "") -> TableVersion:
    """A table, or what lies beside it under `name`, as a run left it. Raises QualityFault if the run did not
    record which columns that has, as the oldest software did not."""
    table_run = run.table(name or table.name)
    if not table_run.columns:
        missing = f"run {run.run} did not record the columns of {table_run.name}"
        raise QualityFault(f"{missing}: run `make {table.layer}` again, which keeps the history")
    files = delta.file_paths(layer_path / run.domain / table_run.name, table_run.version)
    return _version(files, table_run, table)


def _version(files: list[str], table_run: TableRun, table: Table) -> TableVersion:
    types = {column.name: column.type for column in table_run.columns}
    return TableVersion(tuple(sorted(files)), types, table.keys, superseded_from(table_run))


def superseded_from(table_run: TableRun) -> int | None:
    """The run whose rows later batches replace; None when there is no later batch."""
    return table_run.base if table_run.batches else None


def latest_rows(
    raw: str, columns: tuple[str, ...], keys: tuple[str, ...], base: int, quote: Callable[[str], str]
) -> str:
    """SQL of the rows that count: those in the last batch of their key, without deleted ones.

    `raw` is SQL that may stand after FROM. The batches after `base` are few rows, so Spark broadcasts their keys. Of
    the columns id, the key, and nome, after run 7:

    SELECT /*+ BROADCAST(l) */ r."id", r."nome"
    FROM raw r
    LEFT JOIN (SELECT "id", max("_batch") AS last FROM raw b WHERE "_batch" > 7 GROUP BY "id") l ON r."id" = l."id"
    WHERE l.last IS NULL OR (r."_batch" = l.last AND NOT r."_deleted")
    """
    shown = ", ".join(f"r.{quote(name)}" for name in columns)
    named, batch, deleted = ", ".join(map(quote, keys)), quote("_batch"), quote(DELETED)
    same = " AND ".join(f"r.{quote(key)} = l.{quote(key)}" for key in keys)
    last = f"SELECT {named}, max({batch}) AS last FROM {raw} b WHERE {batch} > {base} GROUP BY {named}"
    return (
        f"SELECT /*+ BROADCAST(l) */ {shown} FROM {raw} r LEFT JOIN ({last}) l ON {same} "
        f"WHERE l.last IS NULL OR (r.{batch} = l.last AND NOT r.{deleted})"
    )


@dataclass(frozen=True)
class StagedTable:
    """New content of a table, which nobody sees until it is committed: new files, and those that it keeps of the
    previous version, None when it keeps nothing. `table_run` has the previous version. `taken`: the files that
    its new rows come from, if the source is files. `counts`: what changed, if only that was applied."""

    table_run: TableRun
    table: Table
    path: Path
    files: list[str]
    rules: tuple[RuleRun, ...] = ()
    kept: tuple[str, ...] | None = None
    taken: tuple[IngestedFile, ...] = ()
    counts: RowCounts | None = None

    @property
    def paths(self) -> list[str]:
        return [str(self.path / file) for file in (*(self.kept or ()), *self.files)]

    @property
    def is_unchanged(self) -> bool:
        return self.table_run.mode is Mode.UNCHANGED

    @property
    def content(self) -> TableVersion:
        return _version(self.paths, self.table_run, self.table)

    def commit(self, run: int, compacts: bool = False) -> TableRun:
        """Makes the files the table's content, as a commit of a run, without one if nothing changes. The record with
        its version. It `compacts` when the rows stay the same."""
        change = commits.Change(run, self.content.types, self.files, self.kept, compacts, self.counts)
        version = commits.commit(self.path, self.table, change)
        if self.kept is not None and version == self.table_run.version:
            return self.table_run
        crash_point(Point.TABLE_COMMITTED)
        return replace(self.table_run, version=version, files=delta.fingerprint(delta.files_of(self.path, version)))

    def require_values(self) -> None:
        """Raises QualityFault when a new row lacks a value that the contract requires."""
        names = schema.required(self.table, self.table_run.name)
        types = {column.name: column.type for column in self.table_run.columns if column.name in names}
        if not (types and self.files):
            return
        with engine(f"{self.table.layer}.{self.table_run.name}") as db:
            rows = relation([str(self.path / file) for file in self.files], types)
            lacks = ", ".join(f"bool_or({identifier(name)} IS NULL)" for name in types)
            missing = db.execute(f"SELECT {lacks} FROM {rows}").fetchone() or ()
        for name in (name for name, lacking in zip(types, missing, strict=True) if lacking):
            what = f"{self.table.layer}.{self.table_run.name}: {name}"
            raise QualityFault(f"{what} is null in a row; let its contract say nullable, or mend its transform")


def unchanged_table(table_run: TableRun, table: Table, path: Path) -> StagedTable:
    """The content of a table's last version, once more."""
    kept = tuple(delta.files_of(path, table_run.version))
    table_run = replace(table_run, seconds=0.0, mode=Mode.UNCHANGED, how="unchanged")
    return StagedTable(table_run, table, path, [], kept=kept)


def verify(staged: StagedTable, types: Mapping[str, str], rows: int, sums: Mapping[str, Decimal | None]) -> StagedTable:
    """`staged` with what DuckDB finds in the columns `types` of its files. Raises QualityFault unless they have so many
    rows and these sums, to the cent; null stands for no rows to add."""
    name = f"{staged.table.layer}.{staged.table_run.name}"
    crash_point(Point.FILES_WRITTEN)
    content = evidence(name, relation(staged.paths, types), types, staged.table.keys)
    wrong = [column for column, total in sums.items() if content.sums[column] != (total or 0)]
    if content.rows != rows:
        problem = f"{rows:,} rows were to arrive, {content.rows:,} did"
    elif wrong:
        problem = f"the sum of {wrong[0]} is another"
    else:
        return replace(staged, table_run=replace(staged.table_run, columns=content.columns))
    raise QualityFault(f"{name}: {problem}; nothing was replaced, run it again")
