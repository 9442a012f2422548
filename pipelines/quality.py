"""Checks of one silver table in one pass: every rule becomes a reason why a row is set aside, or a warning.

Transformations only (`DataFrame -> DataFrame`); who runs them is `pipelines/silver.py`.
"""

from collections.abc import Mapping

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf.contract import Column, Pii, Rule, Severity, Table, warn
from silver.columns import masked

# Columns that live only between the transform and the write.
QUARANTINE_COLUMNS = {"_rescued": "string", "_reasons": "array<string>", "_batch": "bigint"}
REASONS, WARNINGS, COPIES, CONFLICT, KNOWN = "_reasons", "_warnings", "_copies", "_conflict", "_accepted"


def all_rules(table: Table) -> tuple[Rule, ...]:
    """The rules of the columns, then those of the table; known labels are a rule, too."""
    labels = tuple(
        warn(f"{column.name} IN ({_texts(column)})", f"{column.name} is a known label")
        for column in table.columns
        if column.labels
    )
    return (*(rule for column in table.columns for rule in column.rules), *labels, *table.rules)


def _texts(column: Column) -> str:
    return ", ".join("'" + label.replace("\\", "\\\\").replace("'", "\\'") + "'" for label in column.labels)


def fold_copies(frame: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    """Identical rows become one with their number in `_copies`; `_conflict` where rows that differ share a key."""
    same_key = Window.partitionBy(*keys)
    folded = frame.groupBy(*frame.columns).agg(F.count(F.lit(1)).alias(COPIES))
    whole_key = F.concat(*(F.col(key).cast("string") for key in keys)).isNotNull()
    return folded.withColumn(CONFLICT, whole_key & (F.count(F.lit(1)).over(same_key) > 1))


def without_copies(frame: DataFrame) -> DataFrame:
    """The same columns as `fold_copies` gives, for a table in which no key comes twice."""
    return frame.withColumns({COPIES: F.lit(1).cast("bigint"), CONFLICT: F.lit(False)})


def parents(accepted: DataFrame, quarantined: DataFrame | None, key: str, carried: tuple[str, ...]) -> DataFrame:
    """What a child needs of its parent table: the key, whether it was accepted, the columns that rules use.

    One row per key, also where many rows of that key are in quarantine; None where none is there.
    """
    taken = F.struct(F.lit(True).alias(KNOWN), *carried)
    good = accepted.select(F.col(key).alias("_key"), taken.alias("_parent"))
    if quarantined is None:
        return good
    refused = F.struct(
        F.lit(False).alias(KNOWN), *(F.lit(None).cast(accepted.schema[name].dataType).alias(name) for name in carried)
    )
    bad = quarantined.where(F.col(key).isNotNull()).select(F.col(key).alias("_key")).distinct()
    return good.unionByName(bad.select("_key", refused.alias("_parent")))


def judge(frame: DataFrame, table: Table, parent_frames: Mapping[str, DataFrame]) -> DataFrame:
    """Adds `_reasons`, why the row is set aside, and `_warnings`, which rules it fails harmlessly; both may be empty.

    `frame` has the table's columns, `_rescued`, `_copies` and `_conflict`; `parent_frames` has one frame of `parents`
    for each reference, by column. Rules see a parent's columns as `<parent table>.<column>`.
    """
    for column, reference in table.references:
        parent = parent_frames[column.name].select(
            F.col("_key").alias("_key"), F.col("_parent").alias(reference.table.name)
        )
        frame = frame.join(parent, on=frame[column.name] == parent["_key"], how="left").drop("_key")
    reasons = [
        *_key_reasons(table),
        *_value_reasons(table),
        *_reference_reasons(table),
        *_rule_reasons(table, Severity.QUARANTINE),
    ]
    warnings = [*_rescue_warnings(table), *_rule_reasons(table, Severity.WARN)]
    judged = frame.withColumns({REASONS: _list(reasons), WARNINGS: _list(warnings)})
    return judged.drop(*(reference.table.name for _, reference in table.references))


def _list(reasons: list[SparkColumn]) -> SparkColumn:
    return F.array_compact(F.array(*reasons)) if reasons else F.array().cast("array<string>")


def _key_reasons(table: Table) -> list[SparkColumn]:
    missing = F.lit(False)
    for key in table.keys:
        missing = missing | (F.col(key).isNull() & ~_rescued(table[key]))
    return [F.when(missing, "key:missing"), F.when(F.col(CONFLICT), "key:conflict")]


def _value_reasons(table: Table) -> list[SparkColumn]:
    """Columns that must not be null: unreadable where bronze rescued the value, else null."""
    needed = [column for column in table.columns if not column.nullable]
    unreadable = [F.when(_rescued(column), f"unreadable:{column.name}") for column in needed]
    null = [
        F.when(F.col(column.name).isNull() & ~_rescued(column), f"{column.name}:null")
        for column in needed
        if not column.key
    ]
    return unreadable + null


def _reference_reasons(table: Table) -> list[SparkColumn]:
    reasons = []
    for column, reference in table.references:
        parent, given = reference.table.name, F.col(column.name).isNotNull()
        reasons.append(F.when(given & F.col(parent).isNull(), f"{parent}:missing"))
        reasons.append(F.when(given & ~F.col(parent)[KNOWN], f"{parent}:quarantined"))
    return reasons


def _rule_reasons(table: Table, severity: Severity) -> list[SparkColumn]:
    return [F.when(~F.expr(rule.condition), rule.name) for rule in all_rules(table) if rule.severity == severity]


def _rescue_warnings(table: Table) -> list[SparkColumn]:
    return [F.when(_rescued(column), f"unreadable:{column.name}") for column in table.columns if column.nullable]


def _rescued(column: Column) -> SparkColumn:
    """Whether bronze kept this column's value as text because its type could not hold it."""
    return F.get_json_object("_rescued", f"$['{column.made_from}']").isNotNull()


def warning_names(table: Table) -> list[str]:
    rescued = [f"unreadable:{column.name}" for column in table.columns if column.nullable]
    return rescued + [rule.name for rule in all_rules(table) if rule.severity == Severity.WARN]


def counts(table: Table) -> list[SparkColumn]:
    """Aggregates over a judged frame: rows_in, rows_out, set_aside, copies, and one per warning of accepted rows."""
    accepted = F.size(REASONS) == 0
    totals = [
        F.sum(COPIES).alias("rows_in"),
        F.count_if(accepted).alias("rows_out"),
        F.count_if(~accepted).alias("set_aside"),
        F.sum(F.col(COPIES) - 1).alias("copies"),
    ]
    names = warning_names(table)
    return totals + [
        F.count_if(accepted & F.array_contains(WARNINGS, name)).alias(f"warning_{index}")
        for index, name in enumerate(names)
    ]


def mask_cards(frame: DataFrame, table: Table) -> DataFrame:
    """The frame with every card number masked."""
    cards = {column.name: masked(column.name) for column in table.columns if column.pii is Pii.CARD}
    return frame.withColumns(cards) if cards else frame


def accepted(judged: DataFrame, table: Table) -> DataFrame:
    """The rows without a reason, as the contract has them."""
    return judged.where(F.size(REASONS) == 0).select(*(column.name for column in table.columns))


def quarantined(judged: DataFrame, table: Table, batch: int) -> DataFrame:
    """The rows with a reason: their values, card numbers masked, the reasons and the bronze run."""
    aside = judged.where(F.size(REASONS) > 0)
    kept = aside.select(
        *(column.name for column in table.columns), "_rescued", REASONS, F.lit(batch).cast("bigint").alias("_batch")
    )
    return mask_cards(kept, table)
