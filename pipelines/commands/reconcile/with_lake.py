"""Each table and the CSV as they are now, against what their run recorded, and against what their upstream gives."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from string import Template

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from conf.contract import Table
from conf.settings import Settings
from pipelines.commands.reconcile.comparison import WITH_RUN, WITH_UPSTREAM, Comparison, differing_rows, shown
from pipelines.core import catalogue
from pipelines.core.errors import StorageFault
from pipelines.core.names import HISTORY, QUARANTINE, upstream_layer
from pipelines.core.sql import read_sql
from pipelines.export.csv import draft, exported, of_any_length, records_of
from pipelines.lake import delta, folders, run_log
from pipelines.lake.changes import TECHNICAL
from pipelines.lake.checksums import differences, evidence
from pipelines.lake.engine import HASHING, count, engine, listed, relation, renamed
from pipelines.lake.runs import Run, TableRun
from pipelines.lake.versions import TableVersion, table_version
from pipelines.silver import checks, judging
from pipelines.spark import analysis
from pipelines.spark.faults import spark_faults
from pipelines.spark.frames import read, write_parquet

RECORDS = Template(read_sql(__file__, "csv_records.sql"))


def compare_with_run(comparison: Comparison) -> None:
    """Compares each table with what its run recorded, and the CSV with gold."""
    layer, run, findings = comparison.layer, comparison.run, comparison.findings
    for table_run in run.tables:
        if catalogue.table_of(layer, run.domain, table_run.name) is None:
            findings.notes.append(f"{layer}.{table_run.name}: no contract names it any more")
            continue
        comparison.report.progress(layer, table_run.name)
        findings.begin(layer, table_run.name, table_run.rows_out)
        with findings.comparing(layer, table_run.name, WITH_RUN, "read") as problems:
            problems += _problems(comparison, table_run)
    for table in (table for table in catalogue.tables_of(layer, run.domain) if table.csv):
        name = folders.csv_path(comparison.settings, table).name
        findings.begin("export", name, run.table(table.name).rows_out)
        with findings.comparing("export", name, WITH_UPSTREAM, "read") as problems:
            problems += csv_against_gold(comparison.settings, table, run)


def _problems(comparison: Comparison, table_run: TableRun) -> list[str]:
    """How a table differs from what its run recorded."""
    layer, run, name = comparison.layer, comparison.run, table_run.name
    if not table_run.columns:
        return [f"was recorded without checksums by run {run.run}: `make {layer}` records them"]
    head = comparison.head(table_run)
    rows, columns = evidence(f"{layer}.{name}", head.sql, head.types, head.keys)
    recorded = table_run.columns
    if run.hashing != HASHING:  # another engine's checksums mean something else
        pairs = zip(columns, recorded, strict=True)
        recorded = tuple(replace(known, checksum=column.checksum) for column, known in pairs)
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
    return evidence(f"{comparison.layer}.{name}", current, types, head.keys) == table_run.content


def compare_with_upstream(comparison: Comparison, spark: SparkSession) -> None:
    """Compares each table with what its transform and checks make, now, of the versions that its run read."""
    settings, layer, run = comparison.settings, comparison.layer, comparison.run
    below = upstream_layer(layer)
    upstream = run_log.upstream_of(settings.layer_path(below), run)
    if upstream is None:
        comparison.findings.notes.append(f"{layer} was built from a run of {below} that is gone: `make {layer}`")
        return
    # Card numbers as the run wrote them, whatever the settings say now.
    comparison = replace(comparison, settings=settings.model_copy(update={"card_numbers": run.card_numbers}))
    for entry in (entry for entry in catalogue.entries(layer) if entry.table.domain == run.domain):
        comparison.report.progress(layer, entry.table.name)
        try:
            with spark_faults():
                for name, frame in _expected(comparison, spark, upstream, entry):
                    problems = [f"is not what {below} gives: {text}" for text in _differences(comparison, name, frame)]
                    comparison.findings.add(layer, name, WITH_UPSTREAM, problems)
        except StorageFault as fault:
            comparison.findings.add(layer, entry.table.name, WITH_UPSTREAM, [f"cannot be compared: {fault}"])
        except AnalysisException:
            problem = f"cannot be compared: its contract changed since run {run.run}: `make {layer}`"
            comparison.findings.add(layer, entry.table.name, WITH_UPSTREAM, [problem])


def _expected(
    comparison: Comparison, spark: SparkSession, upstream: Run, entry: catalogue.Entry
) -> Iterator[tuple[str, DataFrame]]:
    """The rows that a table should have, by its name; of silver also those of its quarantine."""
    settings, run, table = comparison.settings, comparison.run, entry.table
    below = settings.layer_path(upstream_layer(comparison.layer))
    inputs = {source.module: read(spark, table_version(below, upstream, source)) for source in table.inputs}
    if comparison.layer == "gold":
        yield table.name, analysis.transformed(entry, [*inputs.values()])
        return

    parents = judging.stored_tables(settings, run, table.parents)
    checked = judging.check_rows(upstream, entry, [*inputs.values()], parents)
    yield table.name, judging.accepted(settings, checked)
    yield table.name + QUARANTINE, checks.quarantined(checked, upstream.run)


def _differences(comparison: Comparison, name: str, frame: DataFrame) -> list[str]:
    """How the rows that a table has differ from those that it should have."""
    head = comparison.head(comparison.run.table(name))
    types = {column: kind for column, kind in head.types.items() if column not in TECHNICAL}
    with folders.scratch(comparison.settings.layer_path(comparison.layer), "reconcile") as scratch:
        expected = relation(write_parquet(frame, scratch), types)
        with engine(f"{comparison.layer}.{name}", scratch) as db:
            wrong = differing_rows(db, expected, head.sql, types, head.keys)
    return [str(shown(difference, comparison.contract(name))) for difference in wrong]


def csv_against_gold(settings: Settings, table: Table, run: Run) -> list[str]:
    """How the CSV differs, record by record, from the rows of gold's run; nothing if it has the run's bytes."""
    path = folders.csv_path(settings, table)
    if not path.exists():
        return ["is gone"]
    if folders.sha256(path) == run.table(table.name).csv_sha256:
        return []
    files = delta.file_paths(folders.table_path(settings.gold_path, table), run.table(table.name).version)
    with draft(settings, table, files) as fresh, folders.scratch(settings.gold_path, "reconcile") as spill:
        if fresh.sha256 == folders.sha256(path):
            return []
        return _csv_differences(table, fresh.temporary, path, files, spill) or ["its bytes differ, its cells do not"]


def _csv_differences(table: Table, fresh: Path, file: Path, gold_files: list[str], scratch: Path) -> list[str]:
    """The records in which a CSV differs from a fresh one of the same gold files; keys are gold's."""
    names, keys = exported(table), tuple(f"_key{index}" for index, _ in enumerate(table.keys))
    rows = {"gold": relation(gold_files, {key: table[key].type for key in table.keys}), "names": listed(names)}
    rows |= {"key": listed(table.keys), "named_key": renamed(table.keys, keys)}
    with engine(f"export {file}", scratch) as db:

        def read(most: int) -> None:
            records = {"fresh": records_of(table, fresh, most), "given": records_of(table, file, most)}
            db.execute(RECORDS.substitute(rows, **records))

        of_any_length(max(fresh, file, key=lambda csv: csv.stat().st_size), read)
        # Two records are the same by their number or, if one side has more of them, by their cells.
        same = "_n" if count(db, "e") == count(db, "a") else "_hash, _copy"
        expected, numbers = "(FROM e JOIN k USING (_n))", f"(SELECT {same}, _n AS _fresh FROM e)"
        actual = f"(FROM a JOIN {numbers} USING ({same}) JOIN k ON k._n = _fresh)"
        wrong = differences(db, expected, actual, dict.fromkeys(names, "string"), keys)
        row = db.execute(f"SELECT count(*), min(_n), max(_n) FROM a ANTI JOIN e USING ({same})").fetchone()
    extra, first, last = row or (0, 0, 0)
    return [*map(str, wrong), *([f"{extra:,} too many, record {first} to {last}"] if extra else [])]
