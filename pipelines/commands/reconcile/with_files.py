"""Bronze against the files that its rows came from, as far as they are still there."""

from pathlib import Path

from conf.contract import Table
from pipelines.commands.reconcile.comparison import Comparison, differing_rows
from pipelines.core.sql import duckdb_literal
from pipelines.lake import folders
from pipelines.lake.changes import TECHNICAL, Target
from pipelines.lake.checksums import Difference
from pipelines.lake.engine import engine, relation
from pipelines.lake.run_log import read_files
from pipelines.lake.versions import TableVersion
from pipelines.sources.domains import landing_of
from pipelines.sources.files.landing import arrived, hashed, ingest

LINE = ("_source_file", "_source_row")  # the key of a line


def compare(comparison: Comparison, table: Table, head: TableVersion) -> tuple[list[Difference], list[str]]:
    """The rows in which bronze differs from its files, read again; and notes on what could not be compared."""
    settings, landing = comparison.settings, landing_of(comparison.settings, table.domain)
    assert landing is not None
    landed = {file.name: file for file in arrived(landing, [table])}
    # Of a file that was ingested more than once, the last time counts.
    ingested = {file.name: file for file in read_files(settings.bronze_path, table.domain) if file.table == table.name}
    fresh, missing = dict[str, Path](), list[str]()
    types = {name: kind for name, kind in head.types.items() if name not in TECHNICAL}
    with folders.scratch(settings.bronze_path, "reconcile") as scratch:
        for name, record in ingested.items():
            file = landed.get(name)
            if file and hashed(file) == record.sha256:
                target = Target(table, scratch, 0)
                fresh[name] = scratch / ingest([file], target, record.first, comparison.report)[1]
            else:
                missing.append(name)
        notes = []
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
            notes.append(f"source.{table.name}: not compared, because the file is gone or has changed: {shown}")
        if not fresh:
            return [], notes
        expected = relation([str(path) for path in fresh.values()], types)
        actual = f"(SELECT * FROM {head.sql} WHERE _source_file IN ({', '.join(map(duckdb_literal, fresh))}))"
        with engine(f"bronze.{table.name}", scratch) as db:
            return differing_rows(db, expected, actual, types, LINE), notes
