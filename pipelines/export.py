"""Gold as one CSV file: RFC 4180, UTF-8, in key order, written beside its place and renamed."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import psutil

from conf.contract import Table
from conf.settings import Settings
from pipelines import lake
from pipelines.errors import StorageFault
from pipelines.source import quoted

MEMORY = "1GB"


@dataclass(frozen=True)
class Draft:
    """A finished CSV that does not have its name yet."""

    temporary: Path
    final: Path
    rows: int
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
def draft(settings: Settings, table: Table, version: int) -> Iterator[Draft]:
    """Writes the table's version beside its place; what was not published is gone afterwards.

    Header, the columns that do not start with `_`, ordered by key; comma, LF, NULL empty and empty text `""`,
    timestamps as PostgreSQL's ISO style prints them. Readable by owner and group. Raises StorageFault.
    """
    final = lake.csv_path(settings, table)
    with lake.storage(f"export folder {settings.export_path}"):
        settings.export_path.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=settings.export_path, prefix=f".{final.name}.{os.getpid()}.", suffix=".half"
        )
        os.close(handle)
    temporary = Path(name)
    try:
        files = lake.file_paths(lake.table_path(settings.gold_path, table), version)
        rows = _copy(table, files, temporary, settings.gold_path)
        with lake.storage(f"export {temporary}"), temporary.open("rb") as file:
            os.fsync(file.fileno())
            temporary.chmod(0o640)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        yield Draft(temporary, final, rows, sha256)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(settings: Settings, table: Table) -> None:
    """Removes what killed exports left: half files and spilled rows whose process is gone."""
    left = [*settings.export_path.glob(f".{table.name}.csv.*"), *settings.gold_path.glob(".export.*")]
    for path in left:
        pid = path.name.removeprefix(f".{table.name}.csv.").removeprefix(".export.").split(".")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _copy(table: Table, files: list[str], target: Path, gold_path: Path) -> int:
    shown = ", ".join(quoted(column.name) for column in table.columns if not column.name.startswith("_"))
    keys = ", ".join(map(quoted, table.keys))
    if not files:
        target.write_text(
            ",".join(column.name for column in table.columns if not column.name.startswith("_")) + "\n", "utf-8"
        )
        return 0
    dialect = "FORMAT csv, HEADER true, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '', NEW_LINE '\\n'"
    with tempfile.TemporaryDirectory(dir=gold_path, prefix=f".export.{os.getpid()}.") as scratch:
        connection = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": scratch})
        try:
            copied = connection.execute(
                f"COPY (SELECT {shown} FROM read_parquet($files) ORDER BY {keys}) TO $target ({dialect})",
                {"files": files, "target": str(target)},
            ).fetchone()
        except duckdb.Error as error:
            said = f"{type(error).__name__} while writing {table.name}; check the disk's free space"
            raise StorageFault(f"export {target.parent}: {said}") from error
        finally:
            connection.close()
    return int(copied[0]) if copied else 0
