"""Each table of silver and gold against what its transform and checks make, now, of the versions that its run read."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException

from pipelines.commands.reconcile.comparison import WITH_UPSTREAM, Comparison, differing_rows, shown
from pipelines.core import catalogue
from pipelines.core.errors import StorageFault
from pipelines.core.names import QUARANTINE, upstream_layer
from pipelines.gold import proof
from pipelines.lake import folders, run_log
from pipelines.lake.changes import TECHNICAL
from pipelines.lake.engine import engine, relation
from pipelines.lake.runs import Run
from pipelines.lake.versions import table_version
from pipelines.silver import checks, judging
from pipelines.spark.frames import read, storage_faults, write_parquet

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def compare(comparison: Comparison, spark: "SparkSession") -> None:
    settings, layer, run = comparison.settings, comparison.layer, comparison.run
    below = upstream_layer(layer)
    upstream = run_log.upstream_of(settings.layer_path(below), run)
    if upstream is None:
        comparison.findings.notes.append(f"{layer} was built from a run of {below} that is gone: `make {layer}`")
        return
    # Card numbers as the run wrote them, whatever the settings say now.
    comparison = replace(comparison, settings=settings.model_copy(update={"card_numbers": run.card_numbers}))
    for entry in (entry for entry in catalogue.entries(layer) if entry.table.domain == run.domain):
        comparison.report.progress(layer, entry.table.name, 0)
        try:
            with storage_faults():
                for name, frame in _expected(comparison, spark, upstream, entry):
                    problems = [f"is not what {below} gives: {text}" for text in _differences(comparison, name, frame)]
                    comparison.add(name, WITH_UPSTREAM, problems)
        except StorageFault as fault:
            comparison.add(entry.table.name, WITH_UPSTREAM, [f"cannot be compared: {fault}"])
        except AnalysisException:
            problem = f"cannot be compared: its contract changed since run {run.run}: `make {layer}`"
            comparison.add(entry.table.name, WITH_UPSTREAM, [problem])


def _expected(
    comparison: Comparison, spark: "SparkSession", upstream: Run, entry: catalogue.Entry
) -> "Iterator[tuple[str, DataFrame]]":
    """The rows that a table should have, by its name; of silver also those of its quarantine."""
    settings, run, table = comparison.settings, comparison.run, entry.table
    if comparison.layer == "gold":
        inputs = {
            source.module: read(spark, table_version(settings.silver_path, upstream, source)) for source in table.inputs
        }
        yield table.name, proof.transformed(entry, inputs)
        return

    def written(name: str) -> "DataFrame":
        return read(spark, table_version(settings.silver_path, run, comparison.contract(name), name))

    rows = {table_run.name: table_run.rows_out for table_run in run.tables}
    bronze = [read(spark, table_version(settings.bronze_path, upstream, source)) for source in table.inputs]
    checked = judging.check_rows(upstream, entry, bronze, judging.SilverTables(written, rows))
    yield table.name, judging.accepted(settings, checked)
    yield table.name + QUARANTINE, checks.quarantined(checked, upstream.run)


def _differences(comparison: Comparison, name: str, frame: "DataFrame") -> list[str]:
    """How the rows that a table has differ from those that it should have."""
    head = comparison.head(comparison.run.table(name))
    types = {column: kind for column, kind in head.types.items() if column not in TECHNICAL}
    with folders.scratch(comparison.settings.layer_path(comparison.layer), "reconcile") as scratch:
        expected = relation([str(file) for file in write_parquet(frame, scratch)], types)
        with engine(f"{comparison.layer}.{name}", scratch) as db:
            wrong = differing_rows(db, expected, head.sql, types, head.keys)
    return [str(shown(difference, comparison.contract(name))) for difference in wrong]
