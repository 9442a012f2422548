"""What the source's tables are: columns, keys, size, rights."""

from dataclasses import dataclass

from pipelines.core.sql import identifier, read_sql
from pipelines.sources.postgres.snapshot import Snapshot


@dataclass(frozen=True)
class SourceColumn:
    """A column as the catalogue has it; `type` is the internal name of its type, of a domain that of the type below."""

    name: str
    type: str
    precision: int | None
    scale: int | None
    readable: bool


@dataclass(frozen=True)
class Relation:
    """A table or view of the source; `size` in bytes, 0 if it has no pages of its own. `has_xmin`: its rows say which
    transaction wrote them.

    What holds for every row: `unique`, the columns of each unique key without nulls; `foreign_keys`, as (column, table,
    column there).
    """

    oid: int
    schema: str
    name: str
    columns: tuple[SourceColumn, ...]
    size: int
    pages: int
    has_xmin: bool = False
    unique: frozenset[frozenset[str]] = frozenset()
    foreign_keys: frozenset[tuple[str, str, str]] = frozenset()

    @property
    def sql(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.name)}"


RELATION = read_sql(__file__, "relation.sql")
COLUMNS = read_sql(__file__, "relation_columns.sql")
FOREIGN_KEYS = read_sql(__file__, "relation_foreign_keys.sql")
UNIQUE_KEYS = read_sql(__file__, "relation_unique_keys.sql")


def describe(snapshot: Snapshot, name: str) -> Relation | None:
    """The relation as the catalogue has it; None if there is none of that name."""
    with snapshot.connection.cursor() as cursor:
        cursor.execute(RELATION, {"schema": snapshot.schema, "name": name})
        row = cursor.fetchone()
        if row is None:
            return None
        oid, size, block, has_xmin = row
        cursor.execute(COLUMNS, {"oid": oid})
        columns = tuple(SourceColumn(*column) for column in cursor.fetchall())
        cursor.execute(FOREIGN_KEYS, {"oid": oid})
        foreign_keys = frozenset(cursor.fetchall())
        cursor.execute(UNIQUE_KEYS, {"oid": oid})
        unique = frozenset(frozenset(names) for (names,) in cursor.fetchall())
    return Relation(oid, snapshot.schema, name, columns, size, size // block, has_xmin, unique, foreign_keys)
