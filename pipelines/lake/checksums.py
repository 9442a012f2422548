"""What relations hold, as DuckDB counts it (rows, sums, a checksum of each column), and in which rows two differ."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from string import Template
from typing import NamedTuple

from conf.contract import is_summed
from pipelines.core.sql import identifier, read_sql
from pipelines.lake.engine import Engine, engine, exact, listed


@dataclass(frozen=True)
class ColumnRun:
    """One column of a version: `checksum` is order-free over (key, value), `total` the sum of a decimal column."""

    name: str
    type: str
    checksum: str
    total: str | None = None


class Content(NamedTuple):
    """What rows hold: how many there are, and each column's checksum and sum."""

    rows: int
    columns: tuple[ColumnRun, ...]

    @property
    def sums(self) -> dict[str, Decimal]:
        """The sums of the columns that have one."""
        return {column.name: Decimal(column.total) for column in self.columns if column.total is not None}

    def after(self, gone: "Content", came: "Content") -> "Content":
        """The content when some of the rows have gone and others have come."""
        columns = zip(self.columns, gone.columns, came.columns, strict=True)
        return Content(self.rows - gone.rows + came.rows, tuple(_after(*column) for column in columns))


def _after(column: ColumnRun, gone: ColumnRun, came: ColumnRun) -> ColumnRun:
    def corrected(value: str, less: str, more: str) -> str:
        with localcontext(prec=76):
            return f"{Decimal(value) - Decimal(less) + Decimal(more):f}"

    total = None if column.total is None else corrected(column.total, gone.total or "0", came.total or "0")
    return replace(column, checksum=corrected(column.checksum, gone.checksum, came.checksum), total=total)


def measured(db: Engine, rows: str, columns: Mapping[str, str], keys: tuple[str, ...]) -> Content:
    """What a relation (SQL) holds, of `columns` (name to Spark SQL type). The checksum adds a hash of (key, value) over
    the rows, in any order: a value that changed, or changed places, changes it. With the key id and a column valor:

    SELECT count(*),
           coalesce(sum(hash("id", "id")::hugeint), 0)::varchar, NULL,
           coalesce(sum(hash("id", "valor"::decimal(10,2))::hugeint), 0)::varchar,
           coalesce(sum("valor"::decimal(10,2)), 0)::varchar
    FROM ...
    """
    items = ["count(*)"]
    for name, kind in columns.items():
        items.append(f"coalesce(sum(hash({listed(keys)}, {exact(name, kind)})::hugeint), 0)::varchar")
        items.append(f"{_sum(name, kind)}::varchar" if is_summed(kind) else "NULL")
    count, *values = db.execute(f"SELECT {', '.join(items)} FROM {rows}").fetchone() or ()
    pairs = zip(columns.items(), values[::2], values[1::2], strict=True)
    return Content(count, tuple(ColumnRun(name, kind, checksum, total) for (name, kind), checksum, total in pairs))


def evidence(what: str, rows: str, columns: Mapping[str, str], keys: tuple[str, ...]) -> Content:
    """The same, counted in a database of its own."""
    with engine(what) as db:
        return measured(db, rows, columns, keys)


class Totals(NamedTuple):
    """How many rows there are, and the sums of the columns that have one."""

    rows: int
    sums: dict[str, Decimal]


def totals(db: Engine, rows: str, columns: Mapping[str, str]) -> Totals:
    """The totals of a relation (SQL), of `columns` (name to Spark SQL type); the cells of a CSV may be text."""
    summed = {name: kind for name, kind in columns.items() if is_summed(kind)}
    items = ["count(*)", *(_sum(name, kind) for name, kind in summed.items())]
    count, *sums = db.execute(f"SELECT {', '.join(items)} FROM {rows}").fetchone() or ()
    return Totals(count, dict(zip(summed, sums, strict=True)))


def _sum(name: str, kind: str) -> str:
    return f"coalesce(sum({exact(name, kind)}), 0)"


PAIRS = Template(read_sql(__file__, "differences.sql"))


@dataclass(frozen=True)
class Difference:
    """Rows in which two contents differ: missing (expected, not there), extra, or changed in `columns`.

    `least` and `most` are the keys they lie between, empty when keys are personal data.
    """

    kind: str
    rows: int
    least: str
    most: str
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = f"{self.rows:,} row{'s' if self.rows > 1 else ''}"
        key = f"key {self.least}" if self.least == self.most else f"keys {self.least} to {self.most}"
        keys = f", {key}" if self.least else ""
        how = {"changed": f"changed in {', '.join(self.columns)}", "extra": "too many"}.get(self.kind, "missing")
        return f"{rows} {how}{keys}"


def differences(
    db: Engine, expected: str, actual: str, types: Mapping[str, str], keys: tuple[str, ...]
) -> list[Difference]:
    """How two relations (SQL) differ in the columns `types` (name to Spark SQL type), copies of rows counted. To be
    asked once of a database."""
    columns = [f"c{index}" for index in range(len(types))]
    pairs = PAIRS.substitute(
        expected=expected,
        actual=actual,
        key=f"struct_pack({', '.join(f'k{index} := {identifier(name)}' for index, name in enumerate(keys))})",
        values=", ".join(f"{exact(*column)} AS {name}" for name, column in zip(columns, types.items(), strict=True)),
        columns=", ".join(columns),
        changed=", ".join(f"count(*) FILTER (WHERE e.{name} IS DISTINCT FROM a.{name}) AS {name}" for name in columns),
    )
    db.execute(pairs)
    changed = db.execute("FROM changed_values").fetchone() or ()
    names = tuple(name for name, values in zip(types, changed, strict=True) if values)
    kinds = db.execute("SELECT kind, count(*), min(k), max(k) FROM pairs GROUP BY kind ORDER BY kind").fetchall()
    return [
        Difference(kind, rows, _shown(least), _shown(most), names if kind == "changed" else ())
        for kind, rows, least, most in kinds
    ]


def _shown(key: dict[str, object]) -> str:
    return ", ".join(map(str, key.values()))
