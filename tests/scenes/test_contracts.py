"""What every table with a transform must keep in Spark; a new table is tested by being there."""

import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.contract import Table
from pipelines.core import catalogue
from pipelines.core.names import LAYERS
from pipelines.silver import checks
from pipelines.silver.checks import Assumptions, Parent
from tests.support.frames import frame_of

pytestmark = pytest.mark.jvm

BUILT = [entry for layer in LAYERS for entry in catalogue.entries(layer) if entry.transform]
every_built_table = pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.table.module)


def empty(spark: SparkSession, table: Table) -> DataFrame:
    columns = [f"`{column.name}` {column.type}" for column in table.columns]
    return frame_of(spark, ", ".join([*columns, "_rescued string"] if table.layer == "bronze" else columns), [])


@every_built_table
def test_the_last_select_is_the_contract(spark: SparkSession, entry: catalogue.Entry) -> None:
    assert entry.transform is not None
    table = entry.table
    made = entry.transform(*(empty(spark, source) for source in table.inputs))
    expected = [(column.name, column.type) for column in table.columns]
    if table.layer == "silver":
        expected.append(("_rescued", "string"))
    assert [(field.name, spark_name(field.dataType.simpleString())) for field in made.schema] == expected


def spark_name(simple: str) -> str:
    return {"int": "integer"}.get(simple, simple)


@pytest.mark.parametrize(
    "entry", [entry for entry in BUILT if entry.table.layer == "silver"], ids=lambda entry: entry.table.name
)
def test_every_rule_can_be_evaluated_and_no_two_share_a_name(spark: SparkSession, entry: catalogue.Entry) -> None:
    table = entry.table
    frame = empty(spark, table).selectExpr("*", "CAST(NULL AS string) AS _rescued")
    parents = {
        column.name: Parent(checks.parent_keys(empty(spark, ref.table), empty(spark, ref.table), ref))
        for column, ref in table.references
    }
    checked = checks.apply_checks(frame, table, Assumptions(parents))
    assert checks.quarantined(checked, 1).collect() == []
    names = [check.name for check in checked.checks]
    assert len(names) == len(set(names))
