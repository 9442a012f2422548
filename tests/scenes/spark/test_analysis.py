"""A transform or a rule that is not what its contract says is named before a row is read, with the nearest name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.contract import Column, Reference, Table, warn
from pipelines.core import catalogue
from pipelines.core.catalogue import Entry
from pipelines.core.errors import UsageFault
from pipelines.lake import run_log
from pipelines.spark import analysis
from tests.support.lake import Lake

PARENT = Table(
    "silver.teste.conta", "One row per x.", (Column("id", "bigint", "x", key=True), Column("tipo", "string", "x"))
)
INPUT = Table("bronze.teste.fatura", "One row per x.", (Column("id", "bigint", "x", key=True),))
CHILD = Table(
    "silver.teste.fatura",
    "One row per x.",
    (
        Column("id", "bigint", "Id", key=True),
        Column("valor", "decimal(10,2)", "Amount", rules=(warn("valor > 0"),)),
        Column("idade", "integer", "Age"),
        Column("conta_id", "bigint", "Account", reference=Reference(PARENT, ("tipo",))),
    ),
    (INPUT,),
    (warn("conta.tipo = 'x' OR idade IS NULL"),),
)
SELECTED = ("id", "valor", "idade", "conta_id", "_rescued")


def no_rows(spark: SparkSession) -> DataFrame:
    types = {"id": "bigint", "valor": "decimal(10,2)", "idade": "integer", "conta_id": "bigint", "_rescued": "string"}
    return spark.sql(
        f"SELECT {', '.join(f'CAST(NULL AS {kind}) AS {name}' for name, kind in types.items())} WHERE false"
    )


TRANSFORMS: dict[str, tuple[Callable[[DataFrame], Any], str]] = {
    "a column that is not there": (lambda f: f.select("id", "valro"), "transformed: AnalysisException: .*valro"),
    "a function that is not there": (
        lambda f: f.select(F.trimm("id")),  # type: ignore[attr-defined]
        "transformed: AttributeError: .*trimm",
    ),
    "a name that is not there": (lambda f: f.select(colum), "NameError: name 'colum' is not defined"),  # type: ignore[name-defined]  # noqa: F821
    "a column too few": (lambda f: f.select(*SELECTED[:-2], "_rescued"), "its transform gives no column conta_id"),
    "a column of another name": (
        lambda f: f.select(*SELECTED[:-2], F.col("conta_id").alias("contaid"), "_rescued"),
        "gives no column conta_id; did you mean contaid?, gives contaid, which the contract does not have",
    ),
    "another type": (
        lambda f: f.withColumn("idade", F.col("idade").cast("string")),
        "gives idade as string, the contract says integer",
    ),
    "nothing": (lambda f: None, "transformed: AttributeError: 'NoneType' object has no attribute 'dtypes'"),
}
RULES = {
    "valro > 0": "checked by its rule valro > 0: .*valro",
    "conta.tippo = 'x'": "checked by its rule conta.tippo = 'x': ",
    "lenght(id) > 1": "checked by its rule lenght\\(id\\) > 1: .*lenght",
    "valor BETWEEN 1 ADN 2": "checked by its rule valor BETWEEN 1 ADN 2: ",
    "valor + 1": "its rule valor \\+ 1 is decimal\\(.*, not a condition",
}


def test_a_table_that_is_what_its_contract_says_passes(spark: SparkSession) -> None:
    analysis.check_rules(CHILD, analysis.transformed(Entry(CHILD, lambda frame: frame), [no_rows(spark)]))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_that_is_not_its_contract_is_named(name: str, spark: SparkSession) -> None:
    transform, message = TRANSFORMS[name]
    with pytest.raises(UsageFault) as caught:
        analysis.transformed(Entry(CHILD, transform), [no_rows(spark)])
    text = str(caught.value)
    assert text.startswith("silver/teste/fatura.py: ") and all(part in text for part in message.split(".*")), text


@pytest.mark.parametrize("condition", RULES)
def test_a_rule_that_cannot_be_evaluated_is_named(condition: str, spark: SparkSession) -> None:
    with pytest.raises(UsageFault, match=rf"^silver/teste/fatura.py: .*{RULES[condition]}"):
        analysis.check_rules(replace(CHILD, rules=(*CHILD.rules, warn(condition))), no_rows(spark))


@pytest.mark.parametrize(("layer", "name"), [("silver", "movimento"), ("gold", "movimento_flat")])
def test_a_run_checks_its_last_table_before_it_builds_the_first(
    layer: str, name: str, keyed: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "FEW_ROWS", 0)
    keyed.run("bronze", *(["silver"] if layer == "gold" else []))
    true = catalogue.entries

    def entries(of: str) -> tuple[Entry, ...]:
        return tuple(
            replace(entry, transform=lambda *frames: frames[0].select("idd")) if entry.table.name == name else entry
            for entry in true(of)
        )

    with monkeypatch.context() as patch, pytest.raises(UsageFault, match=rf"{layer}/cartoes/{name}.py.*idd") as caught:
        patch.setattr(catalogue, "entries", lambda of: entries(of) if of == layer else true(of))
        keyed.run(layer)
    assert caught.value.code == 2 and run_log.last_run(keyed.settings().layer_path(layer), "cartoes") is None
    keyed.run(layer)
