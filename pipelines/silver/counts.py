"""What a run counts of a table's rows: how many, the sums of its amounts, how many fail each rule.

`aggregates` makes the columns that Spark counts in one pass, `counts_in` reads the row that they give. Counts can be
added and subtracted: those of the previous run - those of the old rows + those of the new rows = those of all rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from pyspark.sql import Column as SparkColumn
from pyspark.sql import Observation
from pyspark.sql import functions as F

from pipelines.silver.checks import COPIES, CheckedRows


@dataclass(frozen=True)
class Sums:
    """The sums of an amount: in the accepted rows, in those set aside, in the copies that count once."""

    out: Decimal = Decimal(0)
    aside: Decimal = Decimal(0)
    copies: Decimal = Decimal(0)


@dataclass(frozen=True)
class Counts:
    """rows_in = rows_out + set_aside + copies. `sums` by column; `failures` by the name of the rule, where a warning
    only counts accepted rows. A name that is missing counts as zero."""

    rows_in: int = 0
    rows_out: int = 0
    set_aside: int = 0
    copies: int = 0
    sums: Mapping[str, Sums] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Counts") -> "Counts":
        return self._plus(other, 1)

    def __sub__(self, other: "Counts") -> "Counts":
        return self._plus(other, -1)

    def _plus(self, other: "Counts", sign: int) -> "Counts":
        sums = {}
        for name in {**self.sums, **other.sums}:
            left, right = self.sums.get(name, Sums()), other.sums.get(name, Sums())
            sums[name] = Sums(
                left.out + sign * right.out, left.aside + sign * right.aside, left.copies + sign * right.copies
            )
        return Counts(
            self.rows_in + sign * other.rows_in,
            self.rows_out + sign * other.rows_out,
            self.set_aside + sign * other.set_aside,
            self.copies + sign * other.copies,
            sums,
            {name: self.failed(name) + sign * other.failed(name) for name in {**self.failures, **other.failures}},
        )

    def failed(self, rule: str) -> int:
        return self.failures.get(rule, 0)

    @property
    def sums_out(self) -> dict[str, Decimal]:
        return {name: sums.out for name, sums in self.sums.items()}

    @property
    def sums_aside(self) -> dict[str, Decimal]:
        return {name: sums.aside for name, sums in self.sums.items()}


def counted(checked: CheckedRows) -> tuple[CheckedRows, Callable[[], Counts]]:
    """The same rows, counted by whatever action reads them; after it, the function returns the counts."""
    observation = Observation(checked.table.name)
    rows = checked.rows.observe(observation, *aggregates(checked))
    return replace(checked, rows=rows), lambda: counts_in(checked, observation.get)


def aggregates(checked: CheckedRows) -> list[SparkColumn]:
    """What Spark counts of checked rows in one pass; `counts_in` knows the names of these columns."""
    accepted = checked.is_accepted
    columns = [
        F.sum(COPIES).alias("rows_in"),
        F.count_if(accepted).alias("rows_out"),
        F.count_if(~accepted).alias("set_aside"),
        F.sum(F.col(COPIES) - 1).alias("copies"),
    ]
    for column in checked.table.summed:
        amount = F.col(column.name)
        copies = F.when(F.col(COPIES) > 1, amount * (F.col(COPIES) - 1).cast("decimal(10,0)"))
        columns += [
            F.sum(F.when(accepted, amount)).alias(f"{column.name}_out"),
            F.sum(F.when(~accepted, amount)).alias(f"{column.name}_aside"),
            F.sum(copies).alias(f"{column.name}_copies"),
        ]
    return columns + [
        F.count_if(checked.counts_as_failed(check)).alias(f"failed_{index}")
        for index, check in enumerate(checked.checks)
        if check.fails is not None
    ]


def counts_in(checked: CheckedRows, row: Mapping[str, Any]) -> Counts:
    """The counts in the row of `aggregates`. A sum over no rows is null there."""
    failures = dict.fromkeys((check.name for check in checked.checks), 0)
    for index, check in enumerate(checked.checks):
        failures[check.name] += row.get(f"failed_{index}") or 0
    sums = {
        column.name: Sums(*(row[f"{column.name}_{side}"] or Decimal(0) for side in ("out", "aside", "copies")))
        for column in checked.table.summed
    }
    return Counts(row["rows_in"] or 0, row["rows_out"], row["set_aside"], row["copies"] or 0, sums, failures)
