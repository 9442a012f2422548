"""DuckDB, the second engine: it writes the CSV and says what a table's files hold, apart from who wrote them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from conf.contract import DECIMAL, is_summed
from pipelines.errors import StorageFault
from pipelines.records import ColumnRun
from pipelines.sql import quoted

MEMORY = 1000  # megabytes
# DuckDB may change its hash from version to version: checksums compare only within one.
HASHING = f"duckdb {duckdb.__version__}"
Columns = tuple[ColumnRun, ...]


class Engine:
    """A database whose queries run in a thread of their own: while one works, signals are heard, and end it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, thread: ThreadPoolExecutor) -> None:
        self._connection, self._thread = connection, thread

    def execute(self, sql: str, parameters: object = None) -> duckdb.DuckDBPyConnection:
        running = self._thread.submit(self._connection.execute, sql, parameters)
        try:
            return running.result()
        except (KeyboardInterrupt, SystemExit):
            self._connection.interrupt()
            wait([running])
            raise

    def interrupt(self) -> None:
        """Ends the query that works now, if any; it raises."""
        with suppress(duckdb.Error):  # it may be closed
            self._connection.interrupt()


@contextmanager
def engine(what: str, scratch: Path | None = None, share: int = 1) -> Iterator[Engine]:
    """A database in bounded memory that spills to `scratch`; one of `share` that work at the same time. What it says
    becomes a StorageFault that names `what`."""
    more: dict[str, str] = {"temp_directory": str(scratch)} if scratch else {}
    if share > 1:
        more["threads"] = str(max(1, (os.cpu_count() or 1) // share))
    connection = duckdb.connect(config={"memory_limit": f"{MEMORY // share}MB", **more})
    try:
        with ThreadPoolExecutor(1) as thread:
            yield Engine(connection, thread)
    except duckdb.Error as error:
        raise StorageFault(f"{what}: {type(error).__name__}; check the files and the disk's free space") from error
    finally:
        connection.close()


def duckdb_type(kind: str) -> str:
    """A Spark SQL type as DuckDB calls it."""
    if kind.startswith("array<"):
        return duckdb_type(kind[len("array<") : -1]) + "[]"
    named = {"string": "varchar", "timestamp_ntz": "timestamp", "timestamp": "timestamptz", "binary": "blob"}
    return named.get(kind, kind)


def relation(files: Sequence[str], columns: Mapping[str, str], where: str = "true") -> str:
    """SQL that reads columns (name to Spark SQL type) of Parquet files; where there are none, no rows."""
    if not files:
        named = ", ".join(f"NULL::{duckdb_type(kind)} AS {quoted(name)}" for name, kind in columns.items())
        return f"(SELECT {named} WHERE false)"
    listed = ", ".join(map(text, files))
    named = ", ".join(
        f"{quoted(name)}::{kind} AS {quoted(name)}" if DECIMAL.fullmatch(kind) else quoted(name)
        for name, kind in columns.items()
    )
    return f"(SELECT {named} FROM read_parquet([{listed}]) WHERE {where})"


def evidence(what: str, rows: str, columns: Mapping[str, str], keys: tuple[str, ...]) -> tuple[int, Columns]:
    """Rows of a relation (SQL) and, of each column (name to Spark SQL type), an order-free checksum and a sum.

    The checksum adds a hash of (key, value) over the rows: a value that changed, or changed places, changes it.
    """
    with engine(what) as connection:
        return measured(connection, rows, columns, keys)


def measured(connection: Engine, rows: str, columns: Mapping[str, str], keys: tuple[str, ...]) -> tuple[int, Columns]:
    """The same, of a relation that `connection` knows."""
    items, named = ["count(*)"], ", ".join(map(quoted, keys))
    for name, kind in columns.items():
        items.append(f"coalesce(sum(hash({named}, {exact(name, kind)})::hugeint), 0)::varchar")
        items.append(f"coalesce(sum({exact(name, kind)}), 0)::varchar" if is_summed(kind) else "NULL")
    found = connection.execute(f"SELECT {', '.join(items)} FROM {rows}").fetchone()
    assert found is not None
    return found[0], tuple(
        ColumnRun(name, kind, found[1 + 2 * index], found[2 + 2 * index])
        for index, (name, kind) in enumerate(columns.items())
    )


def exact(name: str, kind: str) -> str:
    """SQL of a column so that equal means the same: floats by their bits, decimals as their declared type (some
    writers widen them)."""
    return quoted(name) + ("::bit" if kind in ("float", "double") else f"::{kind}" if DECIMAL.fullmatch(kind) else "")


@dataclass(frozen=True)
class Difference:
    """Rows in which two contents differ: missing (expected, not there), extra, or changed in `columns`.

    `least` and `most` are the keys they lie between, empty where keys are personal data.
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


def text(value: str) -> str:
    """A text as DuckDB's SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def differences(
    what: str, expected: str, actual: str, columns: Mapping[str, str], keys: tuple[str, ...], scratch: Path
) -> list[Difference]:
    """In which rows two relations (SQL) differ, with all their copies; `columns` is name to Spark SQL type."""
    values = {name: exact(name, kind) for name, kind in columns.items()}
    listed = ", ".join(f"{value} AS c{index}" for index, value in enumerate(values.values()))
    key = f"struct_pack({', '.join(f'k{index} := {quoted(name)}' for index, name in enumerate(keys))})"
    hashed = f"hash({', '.join(f'c{index}' for index in range(len(values)))})"
    changed = ", ".join(f"count(*) FILTER (WHERE e.c{at} IS DISTINCT FROM a.c{at})" for at in range(len(values)))
    # Rows of one key are told apart by their number among those that differ.
    nth = "SELECT *, row_number() OVER (PARTITION BY k ORDER BY h) AS n FROM"
    with engine(what, scratch) as connection:
        for side, relation in (("e", expected), ("a", actual)):
            rows = f"SELECT {key} AS k, {listed} FROM {relation}"
            connection.execute(f"CREATE VIEW {side} AS SELECT *, {hashed} AS h FROM ({rows})")
        for side, other in (("e", "a"), ("a", "e")):
            only = f"{nth} (SELECT k, h FROM {side} EXCEPT ALL SELECT k, h FROM {other})"
            connection.execute(f"CREATE TEMP TABLE only_{side} AS {only}")
        connection.execute("""
            CREATE TEMP TABLE pairs AS
            SELECT coalesce(m.k, x.k) AS k, m.h AS eh, x.h AS ah,
                   CASE WHEN x.h IS NULL THEN 'missing' WHEN m.h IS NULL THEN 'extra' ELSE 'changed' END AS kind
            FROM only_e m FULL JOIN only_a x ON m.k = x.k AND m.n = x.n""")
        kinds = "SELECT kind, count(*), min(k), max(k) FROM pairs GROUP BY kind ORDER BY kind"
        found = connection.execute(kinds).fetchall()
        one_each = "(SELECT DISTINCT ON (k, h) * FROM {0} WHERE (k, h) IN (SELECT k, h FROM only_{0}))"
        wrong: tuple[int, ...] = (
            connection.execute(
                f"SELECT {changed} FROM pairs p JOIN {one_each.format('e')} e ON e.k = p.k AND e.h = p.eh "
                f"JOIN {one_each.format('a')} a ON a.k = p.k AND a.h = p.ah"
            ).fetchone()
            or ()
        )
    named = tuple(name for name, count in zip(values, wrong, strict=True) if count)
    return [
        Difference(kind, rows, _shown(least), _shown(most), named if kind == "changed" else ())
        for kind, rows, least, most in found
    ]


def _shown(key: dict[str, object]) -> str:
    return ", ".join(map(str, key.values()))
