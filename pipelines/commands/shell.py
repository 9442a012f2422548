"""A PySpark shell in which bronze.*, silver.* and gold.* show the last complete run of each layer."""

import code
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.errors import Fault, QualityFault
from pipelines.core.names import DELETED, LAYERS
from pipelines.core.sql import spark_identifier
from pipelines.lake import delta, run_log
from pipelines.lake.run_log import find_run
from pipelines.lake.runs import Run
from pipelines.lake.versions import latest_rows, superseded_from

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


HINTS = (
    'try: spark.sql("SELECT * FROM {} LIMIT 5").show()',
    'at("gold/1") shows the tables as that run left them, in gold_1; `make history` lists the runs',
    "leave with Ctrl-D",
)


def create_views(settings: Settings, spark: "SparkSession") -> list[str]:
    """Creates a view of each table of the last complete runs, pinned to its version. Returns a line for each run."""
    lines = []
    for layer in LAYERS:
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {layer}")
        path = settings.layer_path(layer)
        runs = {run.domain: run for run in run_log.read_runs(path)}
        for run in runs.values():
            run_log.check_tables(layer, path, run)
            names = _pinned(spark, layer, layer, path, run)
            lines.append(f"{layer}, run {run.run} of {run.finished:%Y-%m-%d %H:%M} UTC: {', '.join(names)}")
        for name in run_log.RECORDS:
            if (head := delta.version(path / name)) is not None:
                table = f"delta.{spark_identifier(str(path / name))} VERSION AS OF {head}"
                spark.sql(f"CREATE OR REPLACE VIEW {layer}.{name} AS SELECT * FROM {table}")
    return lines


def _pinned(spark: "SparkSession", layer: str, database: str, path: Path, run: Run) -> list[str]:
    for table in run.tables:
        location = spark_identifier(str(path / run.domain / table.name))
        rows = f"(SELECT * FROM delta.{location} VERSION AS OF {table.version})"
        columns = tuple(column.name for column in table.columns if column.name != DELETED)
        contract = catalogue.table_of(layer, table.name)
        if contract and (base := superseded_from(table)) is not None:
            rows = f"({latest_rows(rows, columns, contract.keys, base, spark_identifier)})"
        shown = ", ".join(map(spark_identifier, columns)) or "*"
        spark.sql(f"CREATE OR REPLACE VIEW {database}.{spark_identifier(table.name)} AS SELECT {shown} FROM {rows}")
    return [f"{database}.{table.name}" for table in run.tables]


def travel(settings: Settings, spark: "SparkSession") -> Callable[[str], list[str]]:
    """The shell's `at`: shows the tables as a run such as `gold/12` left them, in a database gold_12."""

    def at(run: str) -> list[str]:
        try:
            layer, earlier = find_run(settings, run)
            path, database = settings.layer_path(layer), f"{layer}_{earlier.run}"
            advice = "`make history` lists the runs, `make maintain` keeps the recent ones"
            run_log.check_tables(layer, path, earlier, advice)
            spark.sql(f"CREATE DATABASE IF NOT EXISTS {database}")
            return _pinned(spark, layer, database, path, earlier)
        except Fault as fault:
            print(fault)
            return []

    return at


def shell(settings: Settings, given: "SparkSession | None" = None) -> None:
    """Reads commands until standard input ends; a given session keeps the views. Raises QualityFault without a run."""
    if not any(run_log.heads(settings.layer_path(layer)) for layer in LAYERS):
        raise QualityFault("no layer has a complete run; run `make demo` or `make bronze silver gold` first")
    if sys.stdin.isatty():
        print("Spark starts …", file=sys.stderr, flush=True)
    from pyspark.sql import functions

    from pipelines.spark.session import session

    with nullcontext(given) if given else session(settings) as spark:
        lines = create_views(settings, spark)
        last = lines[-1].rsplit(" ", 1)[-1]
        banner = "\n".join([*lines, HINTS[0].format(last), *HINTS[1:]])
        names = {"spark": spark, "F": functions, "at": travel(settings, spark)}
        if sys.stdin.isatty():
            import readline
            import rlcompleter

            readline.set_completer(rlcompleter.Completer(names).complete)
            readline.parse_and_bind("tab: complete")
        code.interact(banner=banner, local=names, exitmsg="")
