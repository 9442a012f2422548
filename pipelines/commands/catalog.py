"""`make catalog` names the tables in a Hive metastore, for other programs. A name leads to a folder: one sees the head
of a table, as by path. The command takes no lock, and writes to no table."""

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.settings import Settings
from pipelines.commands.shell import last_runs, record_tables
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS
from pipelines.lake import folders
from pipelines.lake.runs import Run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def catalog(settings: Settings, report: Report, given: "SparkSession | None" = None) -> None:
    """Names the tables of the last complete runs in the metastore, or in that of a `given` session. Reports what
    changed there, and what a person types in a shell to ask a table by its name. Raises QualityFault without a run,
    LockedFault if another process has the embedded metastore open."""
    runs = last_runs(settings)
    from pipelines.spark.metastore import session_with_metastore

    rows = sum(table.rows_out for _, run in runs for table in run.tables)
    any_session = nullcontext(given) if given else session_with_metastore(settings, rows, report)
    with any_session as spark, report.waiting("metastore", "names"):
        lines = name_tables(settings, runs, spark)
    report.settle()
    for line in lines:
        report.say(line)
    report.say("")
    *_, example = (f"{layer}.{table.name}" for layer, run in runs for table in run.tables)
    with_metastore = f"--properties-file {shlex.quote(str(settings.catalog_path / folders.SPARK_CONF))}"
    report.command(f'PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    report.command(f"spark-sql {with_metastore} \\")
    report.command(f"  -e {shlex.quote(f'SELECT count(*) FROM {example}')}")
    report.command(f"pyspark {with_metastore}")


def name_tables(settings: Settings, runs: list[tuple[str, Run]], spark: "SparkSession") -> list[str]:
    """Makes the names in the metastore those of the lake: no others that were given here. Returns a line for each
    layer. Raises UsageFault if somebody else's table has such a name; then no name changes."""
    from pipelines.spark.named_tables import free_name, name_table, named_tables

    wanted: dict[str, dict[str, Path]] = {layer: {} for layer in LAYERS}
    for layer, path in record_tables(settings):
        wanted[layer][path.name.lower()] = path
    for layer, run in runs:
        for name in (table.name for table in run.tables if catalogue.table_of(layer, run.domain, table.name)):
            wanted[layer][name.lower()] = settings.layer_path(layer) / run.domain / name
    there = {}
    for layer in LAYERS:
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {layer}")
        there[layer] = named_tables(spark, layer)
        for name in wanted[layer]:
            if there[layer].get(name, Path()) is None:
                raise UsageFault(
                    f"the metastore has a table {layer}.{name} that is not of a lake; drop it or rename it"
                )
    lines = []
    for layer in LAYERS:
        new = [path for name, path in wanted[layer].items() if name not in there[layer]]
        moved = [path for name, path in wanted[layer].items() if there[layer].get(name, path) != path]
        gone = [name for name, path in there[layer].items() if path and name not in wanted[layer]]
        for path in (*new, *moved):
            name_table(spark, layer, path)
        for name in gone:
            free_name(spark, layer, name)
        counts: dict[str, list[Any]] = {"new": new, "moved": moved, "dropped": gone}
        changed = ", ".join(f"{len(names)} {word}" for word, names in counts.items() if names)
        lines.append(f"{layer}: {len(wanted[layer])} tables, {changed or 'nothing changed'}")
    return lines
