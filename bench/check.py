"""Whether a way's result is right. A time counts only if it is.

The expectation is computed from the source alone, once for a size: an order-free checksum of each column over
(key, value). A value that changed, or changed places, changes it. The CSV has no key: the number of a record serves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
from deltalake.exceptions import DeltaError

from bench.rivals import LAYERS, Way
from bench.source import Source, first_row
from bench.ways import duckdb_delta
from bench.ways.duckdb_delta import CLEAN, FLAT, Connection, stored

KEY = "_id_movimento"  # of gold; the others' key is their first column
# One thread: several would look for the ends of records, and may take a line inside a text for a record.
DIALECT = "auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', parallel = false"
DIALECT += ", allow_quoted_nulls = false, max_line_size = 16777216"
SAYS = """
SELECT count(*), sum(vlr_transacao), min(id), max(id), (SELECT count(*) FROM "{0}".associado),
       (SELECT count(*) FROM "{0}".conta), (SELECT count(*) FROM "{0}".cartao)
FROM "{0}".movimento
"""
ALSO_SAYS = SAYS.replace('"{0}"', "bronze")


@dataclass(frozen=True)
class Content:
    """What a relation holds: type and checksum of each column, and as `rows` their number."""

    types: dict[str, str]
    checksums: dict[str, str]


class Untrue(Exception):
    """What DuckDB read of the source is not what PostgreSQL says of it."""


def expected(source: Source, folder: Path, layers: tuple[str, ...] = LAYERS) -> dict[str, Content]:
    """What each `layer.table` must hold after any way. `folder` has room for a copy. Raises Untrue."""
    file = folder / "expected.duckdb"
    file.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(file), config={"memory_limit": "2GB"}) as db:
            duckdb_delta.attach(db, source.environment)
            for layer in LAYERS:
                db.execute(f"CREATE SCHEMA {layer}")
            for table, sql in duckdb_delta.source(source.schema).items():
                db.execute(f"CREATE TABLE bronze.{table} AS {sql}")
                db.execute(f"CREATE VIEW silver.{table} AS {CLEAN[table].format(f'bronze.{table}')}")
            flat = FLAT.format(**{table: f"silver.{table}" for table in CLEAN})
            db.execute(f"CREATE VIEW gold.movimento_flat AS {flat}")
            says = first_row(source.server, SAYS.format(source.schema))
            # Movements have all numbers from 1 on: a record's number in the CSV is its key.
            if says != db.execute(ALSO_SAYS).fetchone() or (says[2], says[3]) != (1, says[0]):
                raise Untrue(f"schema {source.schema}: rows, amounts or ids are not what PostgreSQL says")
            tables = {"bronze": tuple(CLEAN), "silver": tuple(CLEAN), "gold": ("movimento_flat",)}
            names = [f"{layer}.{table}" for layer in layers for table in tables[layer]]
            return {name: _described(db, name) for name in names}
    finally:
        file.unlink(missing_ok=True)


def wrong(way: Way, lake: Path, contents: Mapping[str, Content]) -> list[str]:
    """The tables and columns in which a lake and its CSV are not as expected; the column `rows` is their number."""
    columns: list[str] = []
    with duckdb.connect(config={"memory_limit": "2GB"}) as db:
        for name, content in contents.items():
            layer, table = name.split(".")
            if layer in way.layers:
                columns += _differs(db, name, partial(stored, way.table(lake, layer, table)), content)
            if layer == "gold":
                columns += _differs(db, "csv", partial(_csv, lake / "csv", content.types), content)
    return columns


def _described(db: Connection, name: str) -> Content:
    types = {column: kind for column, kind, *_ in db.execute(f"DESCRIBE {name}").fetchall()}
    return Content(types, _checksums(db, name, types))


def _checksums(db: Connection, relation: str, types: Mapping[str, str]) -> dict[str, str]:
    """The checksum of each column of a relation (SQL) as values of its type, and the number of rows."""
    key = KEY if KEY in types else next(iter(types))
    items = [f"sum(hash({key}::bigint, {name}::{kind})::hugeint)::varchar AS {name}" for name, kind in types.items()]
    checksums = db.execute(f"SELECT count(*)::varchar AS rows, {', '.join(items)} FROM {relation}").fetchone()
    assert checksums is not None
    return dict(zip(("rows", *types), checksums, strict=True))


def _differs(db: Connection, name: str, relation: Callable[[], str], content: Content) -> list[str]:
    """The columns in which a relation (its SQL, from a function) is not as expected."""
    try:
        checksums = _checksums(db, relation(), content.types)
    except (duckdb.Error, DeltaError, OSError, ValueError) as error:
        return [f"{name}: {type(error).__name__}"]
    return [f"{name}.{column}" for column in content.checksums if checksums[column] != content.checksums[column]]


def _csv(folder: Path, types: Mapping[str, str]) -> str:
    """SQL that reads the CSV of a folder and numbers its records; an empty cell is null."""
    (file,) = folder.glob("*.csv")
    names = [name for name in types if name != KEY]
    kinds = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
    cells = ", ".join(f"nullif({name}, '') AS {name}" for name in names)
    cells = f"SELECT {cells} FROM read_csv('{file}', {DIALECT}, columns = {{{kinds}}})"
    return f"(SELECT row_number() OVER () AS {KEY}, * FROM ({cells}))"
