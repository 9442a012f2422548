"""A PySpark shell in which bronze.*, silver.* and gold.* show the last complete run of each layer."""

import code
import sys
from typing import TYPE_CHECKING

from conf.settings import Settings
from pipelines import records
from pipelines.errors import QualityFault
from pipelines.lake import LAYERS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def create_views(settings: Settings, spark: "SparkSession") -> list[str]:
    """One view for each table of the last complete runs, pinned to its version; a line for each layer that has one."""
    lines = []
    for layer in LAYERS:
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {layer}")
        path = settings.layer_path(layer)
        runs = {run.domain: run for run in records.read_runs(path)}
        names = []
        for run in runs.values():
            for table in run.tables:
                location = str(path / run.domain / table.name).replace("`", "``")
                rows = f"SELECT * FROM delta.`{location}` VERSION AS OF {table.version}"
                spark.sql(f"CREATE OR REPLACE VIEW {layer}.`{table.name}` AS {rows}")
                names.append(f"{layer}.{table.name}")
            lines.append(f"{layer}, run {run.run} of {run.finished:%Y-%m-%d %H:%M} UTC: {', '.join(names)}")
    return lines


def shell(settings: Settings) -> None:
    """Reads commands from standard input until it ends. Raises QualityFault where no layer has a complete run."""
    if not any(records.read_runs(settings.layer_path(layer)) for layer in LAYERS):
        raise QualityFault("no layer has a complete run; run `make demo` or `make bronze silver gold` first")
    from pyspark.sql import functions

    from pipelines.spark import session

    with session(settings) as spark:
        lines = create_views(settings, spark)
        banner = "\n".join(
            [*lines, 'try: spark.sql("SELECT * FROM gold.movimento_flat LIMIT 5").show()', "leave with Ctrl-D"]
        )
        names = {"spark": spark, "F": functions}
        if sys.stdin.isatty():
            import readline
            import rlcompleter

            readline.set_completer(rlcompleter.Completer(names).complete)
            readline.parse_and_bind("tab: complete")
        code.interact(banner=banner, local=names, exitmsg="")
