"""Proves again, at any time, that source, bronze, silver, gold and CSV agree, and says where they do not.

Each table is compared with what its run recorded and with what the layer before gives, bronze with the source, the CSV
with gold. Two sides are compared by an order-free checksum of each column; rows are looked at only where these differ.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException

from conf.contract import Pii, Table
from conf.settings import Postgres, Settings
from pipelines.bronze.job import drift, read_plans
from pipelines.commands.reconcile import csv as reconcile_csv
from pipelines.commands.reconcile import with_files
from pipelines.commands.reconcile.with_postgres import compare
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.errors import LockedFault, QualityFault, SourceFault, StorageFault
from pipelines.core.names import HISTORY, LAYERS, QUARANTINE
from pipelines.gold import proof
from pipelines.lake import delta, folders, run_log
from pipelines.lake.changes import TECHNICAL
from pipelines.lake.checksums import Difference, differences, evidence
from pipelines.lake.engine import HASHING, relation
from pipelines.lake.runs import Run, TableRun
from pipelines.lake.versions import TableVersion, superseded_from, table_version
from pipelines.silver import checks, judging
from pipelines.sources.domains import address
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.reader import AUDIT, ReadPlan
from pipelines.sources.postgres.snapshot import Snapshot, snapshot
from pipelines.spark.frames import read, storage_faults, write_parquet
from pipelines.spark.session import session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


AGREES, DIFFERS = "agrees", "differs"


@dataclass
class Findings:
    """What was compared: (table, rows, with its run, with the layer before) by layer and name; where it differs;
    and what is no fault of the lake."""

    rows: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: SourceFault | None = None

    def add(self, layer: str, name: str, column: int, said: list[str]) -> None:
        self.rows[layer, name][column] = DIFFERS if said else AGREES
        self.faults += [f"{layer}.{name} {text}" for text in said]


def reconcile(
    settings: Settings, domains: tuple[str, ...], report: Report, spark: "SparkSession | None" = None
) -> None:
    """Compares everything of some domains and shows it. Raises QualityFault where lake or CSV are not what they should
    be."""
    findings = Findings()
    built = [domain for domain in domains if run_log.last_run(settings.bronze_path, domain)]
    if not built:
        raise run_log.no_complete_run(settings, "bronze")
    with ExitStack() as stack:
        for domain in built:
            runs = {layer: run for layer in LAYERS if (run := run_log.last_run(settings.layer_path(layer), domain))}
            for layer, run in runs.items():
                _with_run(settings, layer, run, findings, report)
            for layer in LAYERS[1:]:
                if layer in runs:
                    spark = spark or stack.enter_context(session(settings))
                    _with_layer_before(settings, spark, layer, runs[layer], findings, report)
            try:
                _with_source(settings, runs["bronze"], findings, report)
            except SourceFault as fault:
                findings.unread = fault
            if any(run_log.last_run(settings.layer_path(layer), domain) != run for layer, run in runs.items()):
                raise LockedFault("a run ended meanwhile and changed what was compared; reconcile again")
    _show(findings, report)
    if findings.faults:
        raise QualityFault(
            f"{len(findings.faults)} difference{'s' if findings.faults[1:] else ''}, listed above; "
            "`make bronze silver gold` builds the lake anew from the source, `make export` the CSV from gold"
        )
    if findings.unread:
        raise findings.unread


def _with_run(settings: Settings, layer: str, run: Run, findings: Findings, report: Report) -> None:
    """Each table, and the CSV, as they are now against what the run recorded of them."""
    for done in run.tables:
        if catalogue.table_of(layer, done.name) is None:
            findings.notes.append(f"{layer}.{done.name}: no contract names it any more")
            continue
        report.progress(layer, done.name, 0)
        findings.rows[layer, done.name] = [f"{done.rows_out:,}", "", ""]
        said: list[str] = []
        try:
            said = _unlike_run(settings, layer, run, done)
        except StorageFault as fault:
            said = [f"cannot be read: {fault}"]
        findings.add(layer, done.name, 1, said)
    for table in (one for one in catalogue.tables_of(layer, run.domain) if one.csv):
        name = folders.csv_path(settings, table).name
        findings.rows["export", name] = [f"{run.table(table.name).rows_out:,}", "", ""]
        try:
            said = reconcile_csv.against_gold(settings, table, run)
        except StorageFault as fault:
            said = [f"cannot be read: {fault}"]
        findings.add("export", name, 2, said)


def _unlike_run(settings: Settings, layer: str, run: Run, done: TableRun) -> list[str]:
    if not done.columns:
        return [f"was recorded without checksums by run {run.run}: `make {layer}` records them"]
    path = settings.layer_path(layer) / run.domain / done.name
    now = content(path, layer, done)
    rows, columns = evidence(f"{layer}.{done.name}", now.sql, now.types, now.keys)
    if run.hashing != HASHING:
        columns = tuple(
            replace(column, checksum=was.checksum) for column, was in zip(columns, done.columns, strict=True)
        )
    head = delta.version(path)
    since = "" if head == done.version else f" (a commit that no run recorded, version {head}, changed it)"
    if rows != done.rows_out:
        return [f"has {rows:,} rows, run {run.run} left {done.rows_out:,}{since}"]
    if done.name.endswith(HISTORY) and run.hashing == HASHING:
        table = run.table(done.name.removesuffix(HISTORY))
        names = {column.name: column.type for column in table.columns}
        current = relation(now.files, names, "_current")
        if evidence(f"{layer}.{done.name}", current, names, now.keys) != (table.rows_out, table.columns):
            return [f"has other rows as current than {layer}.{table.name}"]
    wrong = [column.name for column, was in zip(columns, done.columns, strict=True) if column != was]
    return [f"is not what run {run.run} left: other values in {', '.join(wrong)}{since}"] if wrong else []


def _contract(layer: str, name: str) -> Table:
    table = catalogue.table_of(layer, name)
    assert table is not None
    return table


def content(path: Path, layer: str, done: TableRun) -> TableVersion:
    """What a table holds now, whether a run or somebody else left it so. Raises StorageFault."""
    head = delta.version(path)
    if head is None:
        raise StorageFault(f"table {path} is gone")
    files = delta.file_paths(path, head)
    for file in files:
        if not Path(file).exists():
            raise StorageFault(f"{file} is gone")
    types = {column.name: column.type for column in done.columns}
    return TableVersion(tuple(files), types, _contract(layer, done.name).keys, superseded_from(done))


def _with_layer_before(
    settings: Settings, spark: "SparkSession", layer: str, run: Run, findings: Findings, report: Report
) -> None:
    """Each table against what its transform and its checks make, now, of the versions that its run read."""
    before = LAYERS[LAYERS.index(layer) - 1]
    upstream = run_log.upstream_of(settings.layer_path(before), run)
    if upstream is None:
        findings.notes.append(f"{layer} was built from a run of {before} that is not there: `make {layer}`")
        return
    settings = settings.model_copy(update={"card_numbers": run.card_numbers})
    for entry in (entry for entry in catalogue.entries(layer) if entry.table.domain == run.domain):
        report.progress(layer, entry.table.name, 0)
        try:
            with storage_faults():
                for name, frame in _made(settings, spark, layer, run, upstream, entry):
                    said = _unlike(settings, layer, run, name, frame)
                    findings.add(layer, name, 2, [f"is not what {before} gives: {text}" for text in said])
        except StorageFault as fault:
            findings.add(layer, entry.table.name, 2, [f"cannot be compared: {fault}"])
        except AnalysisException:
            what = f"cannot be compared: its contract changed since run {run.run}: `make {layer}`"
            findings.add(layer, entry.table.name, 2, [what])


def _made(
    settings: Settings, spark: "SparkSession", layer: str, run: Run, upstream: Run, entry: catalogue.Entry
) -> "Iterator[tuple[str, DataFrame]]":
    table = entry.table
    if layer == "gold":
        inputs = {one.module: read(spark, table_version(settings.silver_path, upstream, one)) for one in table.inputs}
        yield table.name, proof.transformed(entry, inputs)
        return

    def written(name: str) -> "DataFrame":
        return read(spark, table_version(settings.silver_path, run, _contract(layer, name), name))

    rows = {done.name: done.rows_out for done in run.tables}
    bronze = [read(spark, table_version(settings.bronze_path, upstream, one)) for one in table.inputs]
    judged = judging.check_rows(upstream, entry, bronze, written, rows)
    yield table.name, judging.accepted(settings, judged, table)
    yield table.name + QUARANTINE, checks.quarantined(judged.rows, table, judged.checks, upstream.run)


def _unlike(settings: Settings, layer: str, run: Run, name: str, frame: "DataFrame") -> list[str]:
    """How the rows that a table should have differ from those that it has."""
    what = f"{layer}.{name}"
    now = content(settings.layer_path(layer) / run.domain / name, layer, run.table(name))
    types = {column: kind for column, kind in now.types.items() if column not in TECHNICAL}
    with folders.scratch(settings.layer_path(layer), "reconcile") as folder:
        made = relation([str(file) for file in write_parquet(frame, folder)], types)
        if evidence(what, made, types, now.keys) == evidence(what, now.sql, types, now.keys):
            return []
        with tempfile.TemporaryDirectory(dir=folder) as spill:
            found = differences(what, made, now.sql, types, now.keys, Path(spill))
    return [str(shown(one, _contract(layer, name))) for one in found]


def shown(difference: Difference, table: Table) -> Difference:
    """Without its keys where they are personal data."""
    hidden = any(table[key].pii is not Pii.NONE for key in table.keys)
    return replace(difference, least="", most="") if hidden else difference


def _with_source(settings: Settings, run: Run, findings: Findings, report: Report) -> None:
    """Bronze against the source as it is now. Raises SourceFault where it cannot be read."""
    tables, now = catalogue.tables_of("bronze", run.domain), address(settings, run.domain)
    if now != run.source:
        raise SourceFault(f"run {run.run} read {run.source}, the settings name {now}: bronze was not compared")
    if catalogue.is_of_files(run.domain):
        for table in tables:
            report.progress("source", table.name, 0)
            _table_with_files(settings, table, run, findings, report)
        return
    names = [table.source_name for table in tables]
    with source_server(settings) as server, snapshot(server, settings.schema_name, names) as picture:
        for one in read_plans(picture, settings.schema_name, tables):
            report.progress("source", one.table.name, 0)
            _table_with_source(settings, server, picture, one, run, findings, report)


def _table_with_files(settings: Settings, table: Table, run: Run, findings: Findings, report: Report) -> None:
    try:
        now = content(folders.table_path(settings.bronze_path, table), "bronze", run.table(table.name))
        wrong, notes = with_files.compare(settings, table, now, report)
    except StorageFault as fault:
        findings.add("bronze", table.name, 2, [f"cannot be compared with its files: {fault}"])
        return
    findings.add("bronze", table.name, 2, [f"is not what its files have: {one}" for one in wrong])
    findings.notes += notes


def _table_with_source(
    settings: Settings, server: Postgres, picture: Snapshot, one: ReadPlan, run: Run, findings: Findings, report: Report
) -> None:
    name, done = one.table.name, run.table(one.table.name)
    findings.notes += [f"{text}, since run {run.run}" for text in drift(one, done)]
    was = {column.name: column.type for column in done.columns if column.name not in AUDIT}
    if not was:
        return  # said before
    known = {column: reading for column, reading in one.readings.items() if was.get(column) == one.types[column]}
    try:
        now = content(folders.table_path(settings.bronze_path, one.table), "bronze", done)
        part = replace(one, readings=known, partial=known.keys() != was.keys())
        found = compare(settings, server, picture, part, now.sql, run, report)
    except StorageFault as fault:
        findings.add("bronze", name, 2, [f"cannot be compared with the source: {fault}"])
        return
    if found is None:
        findings.add("bronze", name, 2, [])
        return
    # Rows that only the lake has were deleted since, unless the lake is known to be wrong.
    corrupt = findings.rows["bronze", name][1] == DIFFERS
    wrong = [shown(each, one.table) for each in found.wrong if corrupt or each.kind != "extra"]
    findings.add("bronze", name, 2, [f"is not what the source had: {each}" for each in wrong])
    if not wrong:
        newer = f"{found.newer:,} row{'s' if found.newer != 1 else ''} written since run {run.run}, {found.gone:,} gone"
        changed = newer if found.exact else f"changed since run {run.run}"
        findings.notes.append(f"source.{name}: {changed}; `make bronze` reads it")
        findings.rows["bronze", name][2] = "changed since"


def _show(findings: Findings, report: Report) -> None:
    table = grid("layer", "table", "with its run", "with the layer before", "rows", left=4)
    for (layer, name), (rows, with_run, with_before) in findings.rows.items():
        table.add_row(layer, name, with_run, with_before, rows)
    if findings.rows:
        report.show(table)
    for text in findings.notes:
        report.say(text)
    for text in findings.faults:
        report.say(f"difference: {text}")
    if not (findings.notes or findings.faults or findings.unread):
        report.say("everything agrees")
