"""A PySpark shell in which bronze.*, silver.* and gold.* are Delta tables, as the last complete run of each layer left
them."""

import code
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.errors import Fault, QualityFault
from pipelines.core.names import DELETED, LAYERS
from pipelines.core.sql import spark_identifier
from pipelines.lake import delta, run_log
from pipelines.lake.run_log import find_run
from pipelines.lake.runs import Run, TableRun
from pipelines.lake.versions import TableVersion, latest_rows
from pipelines.spark.named_tables import free_name, name_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


HINTS = (
    'try: spark.sql("SELECT * FROM {} LIMIT 5").show()',
    "SHOW TABLES IN silver lists quarantines and histories, too; DESCRIBE HISTORY shows the run of each version",
    'at("gold/1") shows the tables as that run left them, in gold_1; `make history` lists the runs',
    "the next run undoes what you write into these tables; leave with Ctrl-D",
)


def last_runs(settings: Settings) -> list[tuple[str, Run]]:
    """The last complete run of each domain, by layer. Raises StorageFault if a table is not as its run left it,
    QualityFault if there is no run."""
    runs = []
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for run in {run.domain: run for run in run_log.read_runs(path)}.values():
            run_log.check_tables(layer, path, run)
            runs.append((layer, run))
    if not runs:
        raise QualityFault("no layer has a complete run; run `make demo` or `make bronze silver gold` first")
    return runs


def create_tables(settings: Settings, runs: list[tuple[str, Run]], spark: "SparkSession") -> list[str]:
    """Names the tables of `last_runs` in Spark's catalogue. Those whose newest version is not what the run
    left, or of whose rows not all count, become views. Returns a line about each view."""
    lines = []
    for layer in LAYERS:
        spark.sql(f"CREATE DATABASE IF NOT EXISTS {layer}")
    for layer, path in record_tables(settings):
        name_table(spark, layer, path)
    for layer, run in runs:
        for table in run.tables:
            path = settings.layer_path(layer) / run.domain / table.name
            if why := _why_view(path, table):
                _create_view(spark, layer, path, layer, table)
                lines.append(f"{layer}.{table.name} is a view: {why}; its Delta table is delta.`{path}`")
            else:
                name_table(spark, layer, path)
    return lines


def record_tables(settings: Settings) -> Iterator[tuple[str, Path]]:
    """The folders of each layer's run log, those that are there."""
    for layer in LAYERS:
        for name in run_log.RECORDS:
            if delta.version(path := settings.layer_path(layer) / name) is not None:
                yield layer, path


def _why_view(path: Path, table: TableRun) -> str:
    """Why a table cannot be shown as it lies there; empty if it can."""
    if table.batches:
        return "later batches replace some of its rows"
    head = delta.version(path)
    return f"version {head} is of no complete run, {table.version} is" if head != table.version else ""


def _create_view(spark: "SparkSession", layer: str, path: Path, database: str, table: TableRun) -> None:
    """A view of the rows of a table that count, as a run left it."""
    rows = f"(SELECT * FROM delta.{spark_identifier(str(path))} VERSION AS OF {table.version})"
    columns = tuple(column.name for column in table.columns if column.name != DELETED)
    contract = catalogue.table_of(layer, path.parent.name, table.name)
    if contract and table.batches and table.base is not None:
        content = TableVersion((), dict.fromkeys(columns, ""), contract.keys)
        rows = f"({latest_rows(rows, content, table.base, spark_identifier)})"
    shown = ", ".join(map(spark_identifier, columns)) or "*"
    free_name(spark, database, table.name)
    spark.sql(f"CREATE VIEW {database}.{spark_identifier(table.name)} AS SELECT {shown} FROM {rows}")


def travel(settings: Settings, spark: "SparkSession") -> Callable[[str], list[str]]:
    """The shell's `at`: shows the tables as a run such as `gold/12` left them, in a database gold_12."""

    def at(run: str) -> list[str]:
        try:
            layer, earlier = find_run(settings, run)
            path, database = settings.layer_path(layer), f"{layer}_{earlier.run}"
            advice = "`make history` lists the runs, `make maintain` keeps the recent ones"
            run_log.check_tables(layer, path, earlier, advice)
            spark.sql(f"CREATE DATABASE IF NOT EXISTS {database}")
            for table in earlier.tables:
                _create_view(spark, layer, path / earlier.domain / table.name, database, table)
            return [f"{database}.{table.name}" for table in earlier.tables]
        except Fault as fault:
            print(fault)
            return []

    return at


def shell(settings: Settings, given: "SparkSession | None" = None) -> None:
    """Reads commands until standard input ends; a given session keeps the tables. Raises QualityFault without a run."""
    runs = last_runs(settings)
    for layer, run in runs:
        tables = ", ".join(f"{layer}.{table.name}" for table in run.tables if not table.is_beside)
        print(f"{layer}/{run.run} of {run.finished:%Y-%m-%d %H:%M} UTC: {tables}", file=sys.stderr)
    if sys.stdin.isatty():
        print("Spark starts …", file=sys.stderr, flush=True)
    from pyspark.sql import functions

    from pipelines.spark.session import compiling_less, session

    rows = sum(table.rows_out for _, run in runs for table in run.tables)
    with nullcontext(given) if given else session(compiling_less(settings, rows)) as spark:
        lines = create_tables(settings, runs, spark)
        layer, run = runs[-1]
        banner = "\n".join([_greeting(), *lines, HINTS[0].format(f"{layer}.{run.tables[-1].name}"), *HINTS[1:]])
        names = {"spark": spark, "sc": spark.sparkContext, "F": functions, "at": travel(settings, spark)}
        if sys.stdin.isatty():
            import readline
            import rlcompleter

            readline.set_completer(rlcompleter.Completer(names).complete)
            readline.parse_and_bind("tab: complete")
        Console(names).interact(banner=banner, exitmsg="")


def _greeting() -> str:
    """What PySpark's own shell prints, which takes the session that is there. There is no web UI to name."""
    with redirect_stdout(io.StringIO()) as printed:
        import pyspark.shell  # noqa: F401
    return "\n".join(line for line in printed.getvalue().splitlines() if "Web UI" not in line)


class Console(code.InteractiveConsole):
    """Python's console; it says in a line which package is missing."""

    def showtraceback(self) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, ImportError) and "pandas" in str(error).lower():
            self.write(f"pandas is missing: {sys.executable} -m pip install 'pandas>=2.2,<3'\n")
        else:
            super().showtraceback()
