"""Checks of one silver table in one pass: every rule says of each row whether it fails, and what that means.

Transformations only (`DataFrame -> DataFrame`); who runs them is `pipelines/silver.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf.contract import Column, Pii, Reference, Severity, Table
from pipelines.core.names import LINE, REST
from silver.columns import masked

# Columns that live only between the transform and the write.
QUARANTINE_COLUMNS = {"_rescued": "string", "_reasons": "array<string>", "_batch": "bigint"}


CHECKS, COPIES, CONFLICT, KNOWN = "_checks", "_copies", "_conflict", "_accepted"


EXAMPLES = 3


LONG_NUMBER = r"[0-9](?=([ -]?[0-9]){4})"  # its digits, but for the last four


@dataclass(frozen=True)
class Check:
    """A rule of the contract on one table: its name, what a failure means, and when a row fails; None where none can,
    which spares each row the question."""

    name: str
    severity: Severity
    fails: SparkColumn | None


@dataclass(frozen=True)
class Parent:
    """What a child's reference is tested against: the parent's keys as `parents` gives them.

    Where the source guarantees that each parent is there, `frame` has only those set aside, or is None for none.
    """

    frame: DataFrame | None
    guaranteed: bool = False


def fold_copies(frame: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    """Identical rows become one with their number in `_copies`; `_conflict` where rows that differ share a key."""
    same_key = Window.partitionBy(*keys)
    folded = frame.groupBy(*frame.columns).agg(F.count(F.lit(1)).alias(COPIES))
    whole_key = F.concat(*(F.col(key).cast("string") for key in keys)).isNotNull()
    return folded.withColumn(CONFLICT, whole_key & (F.count(F.lit(1)).over(same_key) > 1))


def without_copies(frame: DataFrame) -> DataFrame:
    """The same columns as `fold_copies` gives, for a table in which no key comes twice."""
    return frame.withColumns({COPIES: F.lit(1).cast("bigint"), CONFLICT: F.lit(False)})


def parents(accepted: DataFrame | None, quarantined: DataFrame | None, reference: Reference) -> DataFrame:
    """What a child needs of its parents: their key, as `_key0`, …, whether they were accepted, the columns of rules.

    One row per key, also where many rows of that key are in quarantine. At least one of the two frames is given.
    """
    bad, named = None, [F.col(key).alias(f"_key{index}") for index, key in enumerate(reference.table.keys)]
    if quarantined is not None:
        types = {name: quarantined.schema[name].dataType for name in reference.columns}
        refused = F.struct(
            F.lit(False).alias(KNOWN), *(F.lit(None).cast(kind).alias(name) for name, kind in types.items())
        )
        keys = quarantined.select(*named).dropna().distinct()
        bad = keys.select("*", refused.alias("_parent"))
    if accepted is None:
        assert bad is not None
        return bad
    taken = F.struct(F.lit(True).alias(KNOWN), *reference.columns)
    good = accepted.select(*named, taken.alias("_parent"))
    return good.unionByName(bad) if bad is not None else good


def apply_checks(frame: DataFrame, table: Table, found: Mapping[str, Parent], tested: list[Check]) -> DataFrame:
    """Adds `_checks`: for each of `tested` that a row can fail, by its index, whether the row does.

    `frame` has the table's columns, `_rescued`, `_copies` and `_conflict`; `found` has the parents of each reference,
    by column. Rules see a parent's columns as `<parent table>.<column>`.
    """
    joined = frame
    for column, reference in table.references:
        if (parent := found[column.name].frame) is not None:
            keys = [f"_key{index}" for index, _ in enumerate(column.foreign_key)]
            keyed = parent.select(*keys, F.col("_parent").alias(reference.table.name))
            same = reduce(and_, (frame[name] == keyed[key] for name, key in zip(column.foreign_key, keys, strict=True)))
            joined = joined.join(keyed, on=same, how="left").drop(*keys)
    results = [
        F.coalesce(check.fails, F.lit(False)).alias(f"c{index}")
        for index, check in enumerate(tested)
        if check.fails is not None
    ]
    return joined.select(*(joined[name] for name in frame.columns), F.struct(*results).alias(CHECKS))


def checks(table: Table, found: Mapping[str, Parent], copies: bool = True, rescued: bool = True) -> list[Check]:
    """Every rule of the table: its key, its not-null columns, its references, its labels, what the contract adds.

    `copies` and `rescued` tell whether a key may come twice, and whether bronze may have rescued a value.
    """
    return [
        *_line_checks(table, rescued),
        *_key_checks(table, copies, rescued),
        *_value_checks(table, rescued),
        *_reference_checks(table, found),
        *(
            Check(f"{column.name} is a known label", Severity.WARN, ~F.col(column.name).isin(*column.labels))
            for column in table.columns
            if column.labels
        ),
        *(Check(rule.name, rule.severity, ~F.expr(rule.condition)) for rule in table.all_rules),
    ]


def _line_checks(table: Table, rescued: bool) -> Iterator[Check]:
    """Of tables that files are the source of: lines that are no rows, and rows of which a column took the rest."""
    files = [one for one in table.inputs if one.files]
    if files:
        yield Check("line:unreadable", Severity.QUARANTINE, _noted(LINE) if rescued else None)
    for one in files:
        assert one.files is not None
        if one.files.dialect.rest:
            name = f"{one.columns[-1].name} is quoted where it has a {one.files.dialect.delimiter}"
            yield Check(name, Severity.WARN, _noted(REST) if rescued else None)


def _key_checks(table: Table, copies: bool, rescued: bool) -> Iterator[Check]:
    missing = reduce(or_, (_is_null(table, table[key], rescued) for key in table.keys)) if table.keys else None
    yield Check("key:missing", Severity.QUARANTINE, missing)
    yield Check("key:conflict", Severity.QUARANTINE, F.col(CONFLICT) if copies else None)


def _value_checks(table: Table, rescued: bool) -> Iterator[Check]:
    """Values that bronze could not hold; a column that must not be null needs them, another only says so."""
    for column in table.columns:
        severity = Severity.WARN if column.nullable else Severity.QUARANTINE
        yield Check(f"unreadable:{column.name}", severity, _noted(column.made_from) if rescued else None)
        if not (column.nullable or column.key):
            yield Check(f"{column.name}:null", Severity.QUARANTINE, _is_null(table, column, rescued))


def _reference_checks(table: Table, found: Mapping[str, Parent]) -> Iterator[Check]:
    for column, reference in table.references:
        name, parent = reference.table.name, found[column.name]
        given = reduce(and_, (F.col(one).isNotNull() for one in column.foreign_key))
        missing = refused = None
        if parent.frame is not None:
            missing = None if parent.guaranteed else given & F.col(name).isNull()
            refused = given & ~F.col(name)[KNOWN]
        yield Check(f"{name}:missing", Severity.QUARANTINE, missing)
        yield Check(f"{name}:quarantined", Severity.QUARANTINE, refused)


def _noted(name: str) -> SparkColumn:
    """Whether bronze kept something beside a row: under the name of a column the text that its type could not hold."""
    if name == LINE:  # which stands first, and may be too long for a parser
        return F.coalesce(F.startswith("_rescued", F.lit(f'{{"{LINE}": ')), F.lit(False))
    return F.get_json_object("_rescued", f"$['{name}']").isNotNull()


def _is_null(table: Table, column: Column, rescued: bool) -> SparkColumn:
    """Whether the source had no value. A line that is no row has none, and its own reason."""
    null = F.col(column.name).isNull()
    if not rescued:
        return null
    known = null & ~_noted(column.made_from)
    return known & ~_noted(LINE) if any(one.files for one in table.inputs) else known


def _failed(index: int) -> SparkColumn:
    return F.col(f"{CHECKS}.c{index}")


def _setting_aside(tested: list[Check]) -> list[int]:
    """The checks that may set a row aside, by index."""
    return [
        index for index, check in enumerate(tested) if check.severity is not Severity.WARN and check.fails is not None
    ]


def is_accepted(tested: list[Check]) -> SparkColumn:
    """Whether a judged row fails nothing that would set it aside."""
    return ~reduce(or_, map(_failed, _setting_aside(tested)), F.lit(False))


def counts(table: Table, tested: list[Check]) -> list[SparkColumn]:
    """Aggregates over a judged frame: rows, the sums of amounts, and the rows that fail each check that one can fail.

    rows_in, rows_out, set_aside, copies; <column>_out, <column>_aside, <column>_copies; failed_<n>. A warning counts
    accepted rows.
    """
    good = is_accepted(tested)
    items = [
        F.sum(COPIES).alias("rows_in"),
        F.count_if(good).alias("rows_out"),
        F.count_if(~good).alias("set_aside"),
        F.sum(F.col(COPIES) - 1).alias("copies"),
    ]
    for column in table.summed:
        amount = F.col(column.name)
        again = F.when(F.col(COPIES) > 1, amount * (F.col(COPIES) - 1).cast("decimal(10,0)"))
        parts = {"out": F.when(good, amount), "aside": F.when(~good, amount), "copies": again}
        items += [F.sum(part).alias(f"{column.name}_{side}") for side, part in parts.items()]
    return items + [
        F.count_if(_counted(tested, index)).alias(f"failed_{index}")
        for index, check in enumerate(tested)
        if check.fails is not None
    ]


def _counted(tested: list[Check], index: int) -> SparkColumn:
    """A row that fails a rule; one that fails a warning only if it is accepted."""
    return is_accepted(tested) & _failed(index) if tested[index].severity is Severity.WARN else _failed(index)


def examples(judged: DataFrame, table: Table, tested: list[Check], indexes: list[int]) -> dict[int, tuple[str, ...]]:
    """The least keys of rows that fail the checks numbered, up to three of each; none where keys are personal data.

    Of a key of several columns, the parts with commas.
    """
    if not indexes or any(table[key].pii is not Pii.NONE for key in table.keys):
        return {}
    fails = {index: _counted(tested, index) for index in indexes}
    some = reduce(or_, fails.values())
    key = F.struct(*table.keys)
    least = [
        F.array_distinct(F.min_by(F.when(one, key), F.when(one, key), EXAMPLES)).alias(f"k{index}")
        for index, one in fails.items()
    ]
    found = judged.where(some).agg(*least).first()
    assert found is not None
    return {
        index: tuple(
            ", ".join(map(str, one)) for one in found[f"k{index}"] or () if any(part is not None for part in one)
        )
        for index in indexes
    }


def mask_cards(frame: DataFrame, table: Table) -> DataFrame:
    """The frame with every card number masked."""
    cards = {column.name: masked(column.name) for column in table.columns if column.pii is Pii.CARD}
    return frame.withColumns(cards) if cards else frame


def accepted(judged: DataFrame, table: Table, tested: list[Check]) -> DataFrame:
    """The rows without a reason, as the contract has them."""
    return judged.where(is_accepted(tested)).select(*(column.name for column in table.columns))


def quarantined(judged: DataFrame, table: Table, tested: list[Check], batch: int) -> DataFrame:
    """The rows with a reason: their values, card numbers masked, the reasons and the bronze run."""
    reasons = [F.when(_failed(index), tested[index].name) for index in _setting_aside(tested)]
    rescued = F.col("_rescued")
    if any(column.pii is Pii.CARD for column in table.columns):  # a line that is no row may have one anywhere
        rescued = F.when(_noted(LINE), F.regexp_replace(rescued, LONG_NUMBER, "*")).otherwise(rescued)
    kept = judged.where(~is_accepted(tested)).select(
        *(column.name for column in table.columns),
        rescued.alias("_rescued"),
        F.array_compact(F.array(*reasons)).alias("_reasons"),
        F.lit(batch).cast("bigint").alias("_batch"),
    )
    return mask_cards(kept, table)
