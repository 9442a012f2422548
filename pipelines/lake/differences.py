"""In which rows two relations differ: how many are missing, extra or changed, and between which keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from string import Template

from pipelines.core.sql import identifier, read_sql
from pipelines.lake.engine import Engine, exact

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
        keys = f", key {self.least}" if self.least == self.most else f", keys {self.least} to {self.most}"
        keys = keys if self.least else ""
        return {
            "changed": f"{rows} changed in {', '.join(self.columns)}{keys}",
            "missing": f"{rows} missing{keys}",
            "extra": f"{rows} too many{keys}",
        }[self.kind]


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
