"""Each table, and the CSV, as they are now, against what the run recorded of them."""

from dataclasses import replace
from functools import partial

from pipelines.commands.reconcile import csv
from pipelines.commands.reconcile.comparison import WITH_RUN, WITH_UPSTREAM, Comparison, problems_of
from pipelines.core import catalogue
from pipelines.core.names import HISTORY
from pipelines.lake import delta, folders
from pipelines.lake.checksums import evidence
from pipelines.lake.engine import HASHING, relation
from pipelines.lake.runs import TableRun
from pipelines.lake.versions import TableVersion


def compare(comparison: Comparison) -> None:
    layer, run, findings = comparison.layer, comparison.run, comparison.findings
    for table_run in run.tables:
        if catalogue.table_of(layer, table_run.name) is None:
            findings.notes.append(f"{layer}.{table_run.name}: no contract names it any more")
            continue
        comparison.report.progress(layer, table_run.name, 0)
        findings.begin(layer, table_run.name, table_run.rows_out)
        comparison.add(table_run.name, WITH_RUN, problems_of(partial(_problems, comparison, table_run)))
    for table in (table for table in catalogue.tables_of(layer, run.domain) if table.csv):
        name = folders.csv_path(comparison.settings, table).name
        findings.begin("export", name, run.table(table.name).rows_out)
        problems = problems_of(partial(csv.against_gold, comparison.settings, table, run))
        findings.add("export", name, WITH_UPSTREAM, problems)


def _problems(comparison: Comparison, table_run: TableRun) -> list[str]:
    """How a table differs from what its run recorded."""
    layer, run, name = comparison.layer, comparison.run, table_run.name
    if not table_run.columns:
        return [f"was recorded without checksums by run {run.run}: `make {layer}` records them"]
    head = comparison.head(table_run)
    rows, columns = evidence(f"{layer}.{name}", head.sql, head.types, head.keys)
    recorded = table_run.columns
    if run.hashing != HASHING:  # another engine's checksums mean something else
        recorded = tuple(
            replace(known, checksum=column.checksum) for column, known in zip(columns, recorded, strict=True)
        )
    version = delta.version(comparison.path(name))
    foreign = f" (a commit that no run recorded, version {version}, changed it)"
    since = "" if version == table_run.version else foreign
    if rows != table_run.rows_out:
        return [f"has {rows:,} rows, run {run.run} left {table_run.rows_out:,}{since}"]
    if name.endswith(HISTORY) and run.hashing == HASHING and not _is_current(comparison, name, head):
        return [f"has other rows as current than {layer}.{name.removesuffix(HISTORY)}"]
    wrong = [column.name for column, known in zip(columns, recorded, strict=True) if column != known]
    return [f"is not what run {run.run} left: other values in {', '.join(wrong)}{since}"] if wrong else []


def _is_current(comparison: Comparison, name: str, head: TableVersion) -> bool:
    """Whether the rows that a history says are current are those of its table."""
    table_run = comparison.run.table(name.removesuffix(HISTORY))
    types = {column.name: column.type for column in table_run.columns}
    current = relation(head.files, types, "_current")
    return evidence(f"{comparison.layer}.{name}", current, types, head.keys) == (
        table_run.rows_out,
        table_run.columns,
    )
