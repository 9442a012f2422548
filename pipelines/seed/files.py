"""Writes fake rows as the files that bronze contracts name, in their dialect."""

import os
import tempfile
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from conf.contract import QUOTE, Csv, Table
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
    for table, batches in groupby(fake.reported(settings, tables, report), key=itemgetter(0)):
        dialect = table.files.dialect
        with (folder / file_name(table)).open("x", encoding=dialect.encoding, newline="") as file:
            file.write(_line([column.name for column in table.columns if not column.serial], dialect))
            for _, rows in batches:
                file.writelines(_line(_texts(table, row, dialect), dialect) for row in rows)


def _texts(table: Table, row: tuple[Any, ...], dialect: Csv) -> list[str | None]:
    texts = list[str | None]()
    for column, value in zip(table.columns, row, strict=True):
        if not column.serial:
            text = None if value is None else " ".join(str(value).splitlines())  # a field has no line breaks
            texts.append(text.replace(".", ",") if text and column.name in dialect.decimal_comma else text)
    return texts


def _line(texts: Sequence[str | None], dialect: Csv) -> str:
    fields = [dialect.null if text is None else _quoted(text, dialect) for text in texts]
    if dialect.rest and texts[-1] is not None:
        fields[-1] = texts[-1]
    return dialect.delimiter.join(fields) + dialect.line_end


def _quoted(text: str, dialect: Csv) -> str:
    """A text as a field, quoted if it must be."""
    needs = text == dialect.null or dialect.delimiter in text or QUOTE in text
    return f"{QUOTE}{text.replace(QUOTE, QUOTE * 2)}{QUOTE}" if needs else text
