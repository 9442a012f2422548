"""Checks the rows of one silver table in one pass: each rule says of every row whether it fails.

Transformations only (`DataFrame -> DataFrame`); `judging.py` decides what they may assume and what their results mean.

A check that no row can fail is left out: its `fails` is None, Spark asks no row, and the run records 0 failures.
`Assumptions` say which checks these are. Somebody else proves each assumption: see ADR 12.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf.contract import Column, Pii, Reference, Severity, Table
from pipelines.core.names import LINE, REST
from pipelines.spark.remote import least
from silver.columns import masked

# Columns of a quarantine beside those of its table.
QUARANTINE_COLUMNS = {"_rescued": "string", "_reasons": "array<string>", "_batch": "bigint"}

# Columns that live only between the transform and the write.
CHECKS, COPIES, CONFLICT, KNOWN = "_checks", "_copies", "_conflict", "_accepted"

EXAMPLES = 3

LONG_NUMBER = r"[0-9](?=([ -]?[0-9]){4})"  # its digits, except the last four


@dataclass(frozen=True, eq=False)
class Check:
    """A rule of a table. `fails` says whether a row fails it; None if no row can."""

    name: str
    severity: Severity
    fails: SparkColumn | None

    @property
    def sets_aside(self) -> bool:
        return self.severity is not Severity.WARN and self.fails is not None


@dataclass(frozen=True)
class Parent:
    """What a reference is tested against: the parent's keys, as `parent_keys` gives them. `guaranteed`: each parent is
    known to be there, so `rows` has only those in quarantine, or is None if none is."""

    rows: DataFrame | None
    guaranteed: bool = False


@dataclass(frozen=True)
class Assumptions:
    """What is known of a table's rows before they are checked. `parents`: by the column that refers to them.
    `unique_keys`: no key comes twice. `nothing_rescued`: bronze could hold every value of the source."""

    parents: Mapping[str, Parent]
    unique_keys: bool = False
    nothing_rescued: bool = False


@dataclass(frozen=True)
class CheckedRows:
    """Rows of a table, the checks, and in the column `_checks` of each row whether it fails them."""

    table: Table
    rows: DataFrame
    checks: tuple[Check, ...]

    def fails(self, check: Check) -> SparkColumn:
        """Whether a row fails a check. Only for checks that a row can fail."""
        return F.col(f"{CHECKS}.c{self.checks.index(check)}")

    def counts_as_failed(self, check: Check) -> SparkColumn:
        """Whether a row is reported under a check: a warning is only reported of accepted rows."""
        return self.is_accepted & self.fails(check) if check.severity is Severity.WARN else self.fails(check)

    @property
    def is_accepted(self) -> SparkColumn:
        """Whether a row fails nothing that sets it aside."""
        return ~reduce(or_, (self.fails(check) for check in self.checks if check.sets_aside), F.lit(False))


def apply_checks(frame: DataFrame, table: Table, known: Assumptions) -> CheckedRows:
    """Checks each row. `frame` has the table's columns and `_rescued`; identical rows become one. Rules see a parent's
    columns as `<parent table>.<column>`."""
    checks = tuple(_checks(table, known))
    joined = folded = _folded(frame, table, known)
    for column, reference in table.references:
        if (parent := known.parents[column.name].rows) is not None:
            keys = [f"_key{index}" for index, _ in enumerate(column.foreign_key)]
            keyed = parent.select(*keys, F.col("_parent").alias(reference.table.name))
            same = [folded[name] == keyed[key] for name, key in zip(column.foreign_key, keys, strict=True)]
            joined = joined.join(keyed, on=reduce(and_, same), how="left").drop(*keys)
    results = [
        F.coalesce(check.fails, F.lit(False)).alias(f"c{index}")
        for index, check in enumerate(checks)
        if check.fails is not None
    ]
    rows = joined.select(*(joined[name] for name in folded.columns), F.struct(*results).alias(CHECKS))
    return CheckedRows(table, rows, checks)


def quarantined(checked: CheckedRows, batch: int) -> DataFrame:
    """The rows with a reason: their values, card numbers masked, the reasons and the bronze run `batch`."""
    table = checked.table
    reasons = [F.when(checked.fails(check), check.name) for check in checked.checks if check.sets_aside]
    rescued = F.col("_rescued")
    if any(column.pii is Pii.CARD for column in table.columns):  # an unreadable line may have a number anywhere
        rescued = F.when(_noted(LINE), F.regexp_replace(rescued, LONG_NUMBER, "*")).otherwise(rescued)
    kept = checked.rows.where(~checked.is_accepted).select(
        *(column.name for column in table.columns),
        rescued.alias("_rescued"),
        F.array_compact(F.array(*reasons)).alias("_reasons"),
        F.lit(batch).cast("bigint").alias("_batch"),
    )
    return mask_cards(kept, table)


def mask_cards(frame: DataFrame, table: Table) -> DataFrame:
    """The frame with every card number masked."""
    cards = {column.name: masked(column.name) for column in table.columns if column.pii is Pii.CARD}
    return frame.withColumns(cards) if cards else frame


def examples(checked: CheckedRows, failed: Sequence[Check]) -> dict[str, tuple[str, ...]]:
    """By rule, the least keys of rows that fail it, three at most; none if keys are personal data. The parts of a key
    of several columns are separated by commas."""
    table = checked.table
    if not failed or any(table[key].pii is not Pii.NONE for key in table.keys):
        return {}
    conditions = [checked.counts_as_failed(check) for check in failed]
    return {
        check.name: tuple(", ".join(map(str, parts)) for parts in keys if any(part is not None for part in parts))
        for check, keys in zip(failed, least(checked.rows, table.keys, conditions, EXAMPLES), strict=True)
    }


def parent_keys(accepted: DataFrame | None, quarantined: DataFrame | None, reference: Reference) -> DataFrame:
    """What a child needs of its parents: their key, as `_key0`, …, whether they were accepted, the columns of rules.
    One row per key, even if many rows of that key are in quarantine. At least one of the two frames is given."""
    named, parts = [F.col(key).alias(f"_key{index}") for index, key in enumerate(reference.table.keys)], []
    if accepted is not None:
        parent = F.struct(F.lit(True).alias(KNOWN), *reference.columns).alias("_parent")
        parts.append(accepted.select(*named, parent))
    if quarantined is not None:
        values = (F.lit(None).cast(reference.table[name].type).alias(name) for name in reference.columns)
        refused = F.struct(F.lit(False).alias(KNOWN), *values).alias("_parent")
        parts.append(quarantined.select(*named).dropna().distinct().select("*", refused))
    return reduce(DataFrame.unionByName, parts)


def _folded(frame: DataFrame, table: Table, known: Assumptions) -> DataFrame:
    """Identical rows become one with their number in `_copies`; `_conflict` if rows that differ share a key."""
    if known.unique_keys:
        return frame.withColumns({COPIES: F.lit(1).cast("bigint"), CONFLICT: F.lit(False)})
    same_key = Window.partitionBy(*table.keys)
    folded = frame.groupBy(*frame.columns).agg(F.count(F.lit(1)).alias(COPIES))
    complete_key = F.concat(*(F.col(key).cast("string") for key in table.keys)).isNotNull()
    return folded.withColumn(CONFLICT, complete_key & (F.count(F.lit(1)).over(same_key) > 1))


def _checks(table: Table, known: Assumptions) -> Iterator[Check]:
    """Every rule of the table: its lines, its key, its values, its references, its labels, what the contract adds."""
    # Lines of files that are no rows, and rows in which the last column took the rest of its line.
    sources = [(source, source.files.dialect) for source in table.inputs if source.files]
    if sources:
        yield Check("line:unreadable", Severity.QUARANTINE, None if known.nothing_rescued else _noted(LINE))
    for source, dialect in sources:
        if dialect.rest:
            name = f"{source.columns[-1].name} is quoted where it has a {dialect.delimiter}"
            yield Check(name, Severity.WARN, None if known.nothing_rescued else _noted(REST))
    missing = reduce(or_, (_is_null(table, table[key], known) for key in table.keys))
    yield Check("key:missing", Severity.QUARANTINE, missing)
    yield Check("key:conflict", Severity.QUARANTINE, None if known.unique_keys else F.col(CONFLICT))
    # Values that bronze could not hold: a column that must not be null needs them, any other only warns.
    for column in table.columns:
        severity = Severity.WARN if column.nullable else Severity.QUARANTINE
        unreadable = None if known.nothing_rescued else _noted(column.made_from)
        yield Check(f"unreadable:{column.name}", severity, unreadable)
        if not (column.nullable or column.key):
            yield Check(f"{column.name}:null", Severity.QUARANTINE, _is_null(table, column, known))
    for column, reference in table.references:
        name, parent = reference.table.name, known.parents[column.name]
        given = reduce(and_, (F.col(key).isNotNull() for key in column.foreign_key))
        missing, refused = given & F.col(name).isNull(), given & ~F.col(name)[KNOWN]
        yield Check(f"{name}:missing", Severity.QUARANTINE, None if parent.guaranteed else missing)
        yield Check(f"{name}:quarantined", Severity.QUARANTINE, None if parent.rows is None else refused)
    for column in table.columns:
        if column.labels:
            yield Check(f"{column.name} is a known label", Severity.WARN, ~F.col(column.name).isin(*column.labels))
    for rule in table.all_rules:
        yield Check(rule.name, rule.severity, ~F.expr(rule.condition))


def _noted(name: str) -> SparkColumn:
    """Whether bronze kept a note beside a row: under a column's name, the text that its type could not hold."""
    if name == LINE:  # it comes first, and may be too long for a parser
        return F.coalesce(F.startswith("_rescued", F.lit(f'{{"{LINE}": ')), F.lit(False))
    return F.get_json_object("_rescued", f"$['{name}']").isNotNull()


def _is_null(table: Table, column: Column, known: Assumptions) -> SparkColumn:
    """Whether the source had no value. An unreadable line has none, but a reason of its own."""
    null = F.col(column.name).isNull()
    if known.nothing_rescued:
        return null
    readable = null & ~_noted(column.made_from)
    return readable & ~_noted(LINE) if any(source.files for source in table.inputs) else readable
