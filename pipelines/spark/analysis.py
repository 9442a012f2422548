"""Whether transforms and rules are what the contracts say, as Spark resolves them; each mistake is named."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Table
from pipelines.core.catalogue import Entry
from pipelines.core.contracts import file_of, nearest, python_mistake
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS
from pipelines.core.sql import spark_identifier
from pipelines.lake.runs import Job
from pipelines.lake.versions import table_version
from pipelines.spark.frames import read_files
from pipelines.spark.session import FEW_ROWS

MISTAKES = (PySparkException, TypeError, NameError, AttributeError, LookupError, ValueError)


def check(job: Job, entries: tuple[Entry, ...], below: Path) -> None:
    """Checks all tables of a layer before the first is built, on frames without rows, if the software changed and the
    rows, in the layer `below`, are so many that work in vain would take longer. Raises UsageFault."""
    rows = sum(table.rows_out for table in job.upstream.tables)
    if rows <= FEW_ROWS or (job.previous and job.previous.software == job.run.software):
        return
    for entry in entries:
        versions = [table_version(below, job.upstream, source) for source in entry.table.inputs]
        made = transformed(entry, [read_files(job.session(), [], version.types) for version in versions])
        check_rules(entry.table, made)


def transformed(entry: Entry, inputs: Sequence[DataFrame]) -> DataFrame:
    """What a transform makes of its inputs. Raises UsageFault if that is not what its contract says."""
    table = entry.table
    assert entry.transform is not None
    with _named(table, "transformed", [name for frame in inputs for name in frame.columns]):
        made = entry.transform(*inputs)
        types = {name: "integer" if kind == "int" else kind for name, kind in made.dtypes}
    wanted = {column.name: column.type for column in table.columns}
    wanted |= {"_rescued": "string"} if table.layer == LAYERS[1] else {}
    problems = [f"gives no column {name}{nearest(name, types)}" for name in wanted if name not in types]
    problems += [
        f"gives {name} as {kind}, the contract says {wanted[name]}"
        for name, kind in types.items()
        if kind != wanted.get(name, kind)
    ]
    if problems:  # other columns, and another order, are no mistake
        problems += [f"gives {name}, which the contract does not have" for name in types if name not in wanted]
        raise UsageFault(f"{file_of(table.module)}: its transform {', '.join(problems)}")
    return made


def check_rules(table: Table, made: DataFrame) -> None:
    """Raises UsageFault for a rule that cannot be evaluated on a transform's rows, or is no condition."""
    parents = []
    for _, reference in table.references:
        types = {name: reference.table[name].type for name in reference.columns} | {"_accepted": "boolean"}
        fields = ", ".join(f"{spark_identifier(name)}: {kind}" for name, kind in types.items())
        parents.append(F.lit(None).cast(f"struct<{fields}>").alias(reference.table.name))
    rows = made.select("*", *parents)
    for rule in table.all_rules:
        with _named(table, f"checked by its rule {rule.condition}", (*rows.columns, *dir(F))):
            ((_, kind),) = rows.select(F.expr(rule.condition).alias("rule")).dtypes
        if kind != "boolean":
            raise UsageFault(f"{file_of(table.module)}: its rule {rule.condition} is {kind}, not a condition")


@contextmanager
def _named(table: Table, what: str, known: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except MISTAKES as error:
        raise UsageFault(python_mistake(error, table.module, known, what)) from error
