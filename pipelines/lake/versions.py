"""A version of a table: its rows, as SQL that both DuckDB and Spark understand, and the next one before it counts."""

from collections.abc import Callable, Collection, Iterable, Mapping
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
    """The data files of a version, its columns (name to Spark SQL type) and the key.

    `path` and `number`: the table and the number of its last commit, None when the files are of no commit and not made
    from one. `feed`: the change data file that leads from that commit to this version, empty when it is that of the
    commit. `base`: an earlier release kept superseded rows, and this is the run after which it did so.
    """

    files: tuple[str, ...]
    types: Mapping[str, str]
    keys: tuple[str, ...]
    path: Path | None = None
    number: int | None = None
    feed: str = ""
    base: int | None = None

    @property
    def sql(self) -> str:
        """SQL of the rows."""
        rows = relation(self.files, self.stored)
        return rows if self.base is None else f"({latest_rows(rows, self, self.base, identifier)})"

    @property
    def stored(self) -> dict[str, str]:
        """The columns with which its files are read."""
        return {**self.types} if self.base is None else {**self.types, DELETED: "boolean"}

    def only(self, files: Collection[str]) -> "TableVersion":
        """The rows of some of the files."""
        return replace(self, files=tuple(sorted(files)))


def table_version(layer_path: Path, run: Run, table: Table, name: str = "") -> TableVersion:
    """A table, or what lies beside it under `name`, as a run left it. Raises QualityFault if the run did not
    record which columns that has, as the oldest software did not."""
    table_run = run.table(name or table.name)
    if not table_run.columns:
        missing = f"run {run.run} did not record the columns of {table_run.name}"
        raise QualityFault(f"{missing}: run `make {table.layer}` again, which keeps the history")
    path = layer_path / run.domain / table_run.name
    return _version(path, delta.file_paths(path, table_run.version), table_run, table)


def _version(path: Path, files: Iterable[str], table_run: TableRun, table: Table) -> TableVersion:
    types = {column.name: column.type for column in table_run.columns if column.name != DELETED}
    base = table_run.base if table_run.batches else None
    return TableVersion(tuple(sorted(files)), types, table.keys, path, table_run.version, base=base)


def latest_rows(raw: str, content: TableVersion, base: int, quote: Callable[[str], str]) -> str:
    """SQL of the rows that count in a version of an earlier release: of a key those in its last batch after the run
    `base`, without deleted ones. `raw` is SQL that may stand after FROM."""
    columns, keys = (", ".join(map(quote, names)) for names in (content.types, content.keys))
    batch = quote("_batch")
    last = f"SELECT *, max({batch}) OVER (PARTITION BY {keys}) AS _last FROM {raw}"
    return f"SELECT {columns} FROM ({last}) WHERE _last <= {base} OR ({batch} = _last AND NOT {quote(DELETED)})"


@dataclass(frozen=True)
class StagedTable:
    """New content of a table, which nobody sees until it is committed: new files, and those that it keeps of the
    previous version, None when it keeps nothing. `table_run` has the previous version. `taken`: the files that
    its new rows come from, if the source is files. `counts`: what changed, if only that was applied; `feed`: the change
    data file, from the table's folder, that says the same row by row."""

    table_run: TableRun
    table: Table
    path: Path
    files: list[str]
    rules: tuple[RuleRun, ...] = ()
    kept: tuple[str, ...] | None = None
    taken: tuple[IngestedFile, ...] = ()
    counts: RowCounts | None = None
    feed: str = ""

    @property
    def written(self) -> list[Path]:
        """The files that its commit adds to the table's folder."""
        return [self.path / file for file in (*self.files, *filter(None, [self.feed]))]

    @property
    def paths(self) -> list[str]:
        return [str(self.path / file) for file in (*(self.kept or ()), *self.files)]

    @property
    def is_unchanged(self) -> bool:
        return self.table_run.mode is Mode.UNCHANGED

    @property
    def content(self) -> TableVersion:
        version = _version(self.path, self.paths, self.table_run, self.table)
        feed = str(self.path / self.feed) if self.feed else ""
        return replace(version, feed=feed, number=None if self.kept is None else version.number)

    def commit(self, run: int, compacts: bool = False) -> TableRun:
        """Makes the files the table's content, as a commit of a run, without one if nothing changes. The record with
        its version. It `compacts` when the rows stay the same."""
        change = commits.Change(run, self.content.types, self.files, self.kept, compacts, self.counts, self.feed)
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
            files, came = ([self.feed], f"{delta.CHANGE} IN {delta.CAME}") if self.feed else (self.files, "true")
            rows = relation([str(self.path / file) for file in files], types, came)
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
