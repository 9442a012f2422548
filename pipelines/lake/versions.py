"""The rows of a version, as SQL that both DuckDB and Spark understand.

Bronze appends what changed, as batches. Of a key the row in its last batch counts; none if that one is deleted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from conf.contract import Table
from pipelines.core.names import DELETED
from pipelines.core.sql import identifier
from pipelines.lake import delta
from pipelines.lake.engine import relation
from pipelines.lake.runs import Run, TableRun


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
        """SQL of all rows that the files have."""
        return relation(self.files, self.types)

    @property
    def sql(self) -> str:
        """SQL of the rows that count."""
        return (
            self.raw
            if self.base is None
            else f"({latest_rows(self.raw, tuple(self.types), self.keys, self.base, identifier)})"
        )

    def only(self, files: set[str]) -> "TableVersion":
        """The rows of some of the files, when no batch replaces rows of another."""
        return replace(self, files=tuple(sorted(files)))


def table_version(layer_path: Path, run: Run, table: Table, name: str = "") -> TableVersion:
    """A table, or what lies beside it under `name`, as a run left it."""
    table_run = run.table(name or table.name)
    files = delta.file_paths(layer_path / run.domain / table_run.name, table_run.version)
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
