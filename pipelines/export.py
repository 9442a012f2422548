"""Gold as one CSV file: RFC 4180, UTF-8, in key order, written beside its place and renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from conf.contract import Table
from conf.settings import Settings
from pipelines import lake
from pipelines.duck import engine, text
from pipelines.sql import quoted


@dataclass(frozen=True)
class Draft:
    """A finished CSV that does not have its name yet; `rows` and `totals` are what reading it back gave."""

    temporary: Path
    final: Path
    rows: int
    totals: dict[str, Decimal]
    sha256: str

    @contextmanager
    def published(self) -> Iterator[None]:
        """Gives the file its name in one step: readers see the old one or the new one.

        If the context fails, the old one gets the name back.
        """
        with lake.storage(f"export {self.final}"):
            old = self.temporary.with_suffix(".old")
            with suppress(OSError):  # no file yet, or a file system without links
                old.hardlink_to(self.final)
            self.temporary.replace(self.final)
        try:
            yield
        except BaseException:
            with suppress(FileNotFoundError):
                old.replace(self.final)
            raise
        finally:
            old.unlink(missing_ok=True)


@contextmanager
def draft(settings: Settings, table: Table, files: list[str]) -> Iterator[Draft]:
    """Writes the table's data files as one CSV beside its place; what was not published is gone afterwards.

    Header, the columns that do not start with `_`, ordered by key; comma, LF, NULL empty and empty text `""`,
    timestamps as PostgreSQL's ISO style prints them. Readable by owner and group. Raises StorageFault.
    """
    final = lake.csv_path(settings, table)
    with lake.storage(f"export folder {settings.export_path}"):
        settings.export_path.mkdir(parents=True, exist_ok=True)
        prefix = f".{final.name}."
        lake.sweep(settings.export_path.glob(f"{prefix}*"), prefix)
        handle, name = tempfile.mkstemp(dir=settings.export_path, prefix=f"{prefix}{os.getpid()}.", suffix=".half")
        os.close(handle)
    temporary = Path(name)
    try:
        _copy(table, files, temporary, settings.gold_path)
        rows, totals = read_back(table, temporary)
        with lake.storage(f"export {temporary}"), temporary.open("rb") as file:
            os.fsync(file.fileno())
            temporary.chmod(0o640)
        yield Draft(temporary, final, rows, totals, lake.sha256(temporary))
    finally:
        temporary.unlink(missing_ok=True)


def _copy(table: Table, files: list[str], target: Path, gold_path: Path) -> None:
    names = exported(table)
    if not files:
        target.write_text(",".join(names) + "\n", "utf-8")
        return
    shown, keys = (", ".join(map(quoted, some)) for some in (names, table.keys))
    dialect = "FORMAT csv, HEADER true, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '', NEW_LINE '\\n'"
    dialect += ", USE_TMP_FILE false"  # its own would be open to all
    with (
        lake.scratch(gold_path, "export") as scratch,
        engine(f"export {target.parent}: writing {table.name}", scratch) as connection,
    ):
        connection.execute(
            f"COPY (SELECT {shown} FROM read_parquet($files) ORDER BY {keys}) TO $target ({dialect})",
            {"files": files, "target": str(target)},
        )


def exported(table: Table) -> list[str]:
    return [column.name for column in table.columns if not column.name.startswith("_")]


def read_back(table: Table, file: Path) -> tuple[int, dict[str, Decimal]]:
    """Records of a CSV and the sums of its amounts, as a reader of the file finds them."""
    names = exported(table)
    summed = [column for column in table.summed if column.name in names]
    sums = "".join(f", coalesce(sum({quoted(column.name)}::{column.type}), 0)" for column in summed)
    with engine(f"export {file.parent}: reading {table.name} back") as connection:
        rows, *totals = connection.execute(f"SELECT count(*){sums} FROM {records_of(table, file)}").fetchone() or (0,)
    return rows, {column.name: total for column, total in zip(summed, totals, strict=True)}


def records_of(table: Table, file: Path) -> str:
    """SQL that reads a CSV, every cell as text, an empty cell as null."""
    kinds = ", ".join(f"{text(name)}: 'VARCHAR'" for name in exported(table))
    dialect = "header = true, delim = ',', quote = '\"', escape = '\"', new_line = '\\n', allow_quoted_nulls = false"
    # One thread: several look for the ends of records, and may take a line inside a text for one.
    dialect += ", parallel = false, max_line_size = 16777216"
    return f"read_csv({text(str(file))}, auto_detect = false, {dialect}, columns = {{{kinds}}})"
