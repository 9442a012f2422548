"""Writes fake rows as the files that bronze contracts name, in their dialect."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from conf.contract import QUOTE, Column, Csv, Table
from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import SourceFault
from pipelines.lake import folders
from pipelines.seed import fake


def seed(settings: Settings, folder: Path, tables: tuple[Table, ...], report: Report) -> None:
    """Writes a file a table, parents first, unless they are there. Raises SourceFault if the folder has other files."""
    with folders.storage(f"landing folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".seed.") as made:
            _write(settings, Path(made), tables, report)
            files = [Path(made) / file_name(table) for table in tables]
            there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
            if there:
                if there != {file.name for file in files} or any(
                    folders.sha256(file) != folders.sha256(folder / file.name) for file in files
                ):
                    raise SourceFault(f"{folder} has files that `make seed` did not make so; move them away")
                report.step(f"{folder}: the fake files are there already")
                return
            for moment, file in enumerate(files, 1):
                os.utime(file, (moment, moment))  # the order of arrival
                file.rename(folder / file.name)
    rows = fake.sizes(tables, settings.seed.movimentos)
    for table in tables:
        report.step(f"{folder / file_name(table)}: {rows[table.name]:,} fake rows")


def file_name(table: Table) -> str:
    """The file that the seed writes for a table: the pattern without its wildcards."""
    assert table.files is not None
    return table.files.pattern.replace("*", "")


def _write(settings: Settings, folder: Path, tables: tuple[Table, ...], report: Report) -> None:
    with ExitStack() as stack:
        files = {}
        for table in tables:
            assert table.files is not None
            dialect = table.files.dialect
            file = (folder / file_name(table)).open("x", encoding=dialect.encoding, newline="")
            files[table.name] = stack.enter_context(file)
            file.write(_line([column.name for column in table.columns if not column.serial], dialect))
        for table, rows in fake.reported(settings, tables, report):
            files[table.name].writelines(_lines(table, rows))


def _lines(table: Table, rows: list[tuple[Any, ...]]) -> Iterator[str]:
    assert table.files is not None
    dialect = table.files.dialect
    for row in rows:
        cells = ((column, value) for column, value in zip(table.columns, row, strict=True) if not column.serial)
        yield _line([None if value is None else _text(column, value, dialect) for column, value in cells], dialect)


def _text(column: Column, value: Any, dialect: Csv) -> str:
    return str(value).replace(".", ",") if column.name in dialect.decimal_comma else str(value)


def _line(texts: list[str | None] | list[str], dialect: Csv) -> str:
    # A field has no line breaks.
    shown = [text if text is None else " ".join(text.splitlines()) for text in texts]
    fields = [dialect.null if text is None else _quoted(text, dialect) for text in shown]
    if dialect.rest and shown[-1] is not None:
        fields[-1] = shown[-1]
    return dialect.delimiter.join(fields) + dialect.line_end


def _quoted(text: str, dialect: Csv) -> str:
    """A text as a field, quoted if it must be."""
    needs = text == dialect.null or dialect.delimiter in text or QUOTE in text
    return f"{QUOTE}{text.replace(QUOTE, QUOTE * 2)}{QUOTE}" if needs else text
