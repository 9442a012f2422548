"""A table's new content before it counts: files that are written, what a second engine finds in them, their commit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from conf.contract import Table
from pipelines import lake
from pipelines.damage import fingerprint
from pipelines.duck import evidence
from pipelines.errors import QualityFault
from pipelines.records import RuleRun, TableRun


@dataclass(frozen=True)
class Built:
    """New content of a table, which nobody sees until it is committed; `done` has no version yet."""

    done: TableRun
    table: Table
    path: Path
    schema: pa.Schema
    files: list[str]
    rules: tuple[RuleRun, ...] = ()

    @property
    def paths(self) -> list[str]:
        return [str(self.path / file) for file in self.files]

    def commit(self) -> TableRun:
        """Makes the files the table's whole content."""
        version = lake.commit_files(self.path, self.table, self.schema, self.files)
        return replace(self.done, version=version, files=fingerprint(lake.actions(self.path, version)))

    def discard(self) -> None:
        """Removes the files: a run that failed leaves no rows behind."""
        for file in (self.path / name for name in self.files):
            file.unlink(missing_ok=True)


def prove(
    built: Built, types: Mapping[str, str], keys: tuple[str, ...], rows: int, totals: Mapping[str, Decimal | None]
) -> Built:
    """`built` with what DuckDB finds in its files. Raises QualityFault unless that is `rows`, and each of `totals`
    (null stands for none), to the cent."""
    name = f"{built.table.layer}.{built.done.name}"
    try:
        return _proved(built, name, types, keys, rows, totals)
    except BaseException:
        built.discard()
        raise


def _proved(
    built: Built,
    name: str,
    types: Mapping[str, str],
    keys: tuple[str, ...],
    rows: int,
    totals: Mapping[str, Decimal | None],
) -> Built:
    found, columns = evidence(name, built.paths, types, keys)
    done = replace(built.done, columns=columns)
    wrong = [column for column, total in totals.items() if done.totals[column] != (total or 0)]
    if found != rows or wrong:
        said = f"{rows:,} rows were to arrive, {found:,} did" if found != rows else f"the sum of {wrong[0]} is another"
        raise QualityFault(f"{name}: {said}; nothing was replaced, run it again")
    return replace(built, done=done)
