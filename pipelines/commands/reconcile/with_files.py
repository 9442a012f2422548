"""Bronze against the files that its rows came from, as far as these are still there."""

import tempfile
from pathlib import Path

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.lake import folders
from pipelines.lake.changes import TECHNICAL, Target
from pipelines.lake.checksums import Difference, differences, evidence
from pipelines.lake.engine import relation, text
from pipelines.lake.run_log import read_files
from pipelines.lake.versions import TableVersion
from pipelines.sources.domains import landing_of
from pipelines.sources.files.landing import arrived, hashed, ingest

ROW = ("_source_file", "_source_row")


def compare(settings: Settings, table: Table, now: TableVersion, report: Report) -> tuple[list[Difference], list[str]]:
    """In which rows bronze differs from what reading its files again gives; what could not be compared, in words."""
    landing = landing_of(settings, table.domain)
    assert landing is not None
    there = {file.name: file for file in arrived(landing, [table])}
    taken = [one for one in read_files(settings.bronze_path, table.domain) if one.table == table.name]
    last, made, missing = {one.name: one for one in taken}, dict[str, Path](), list[str]()
    types = {name: kind for name, kind in now.types.items() if name not in TECHNICAL}
    with folders.scratch(settings.bronze_path, "reconcile") as scratch:
        for one in taken:
            file = there.get(one.name)
            if file and last[one.name] == one and hashed(file) == one.sha256:
                made[one.name] = scratch / ingest([file], Target(table, scratch, 0), one.first, report)[1]
            elif last[one.name] == one:
                missing.append(one.name)
        notes = []
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
            notes.append(f"source.{table.name}: not compared, for the file is gone or another one now: {shown}")
        if not made:
            return [], notes
        expected = relation([str(path) for path in made.values()], types)
        actual = f"(SELECT * FROM {now.sql} WHERE _source_file IN ({', '.join(map(text, made))}))"
        what = f"bronze.{table.name}"
        if evidence(what, expected, types, ROW) == evidence(what, actual, types, ROW):
            return [], notes
        with tempfile.TemporaryDirectory(dir=scratch) as spill:
            return differences(what, expected, actual, types, ROW, Path(spill)), notes
