"""What the source's tables are: columns, keys, size, rights."""

from dataclasses import dataclass

from pipelines.core.sql import identifier
from pipelines.sources.postgres.snapshot import Snapshot


@dataclass(frozen=True)
class SourceColumn:
    """A column as the catalogue has it; `type` is the base type's internal name, of a domain the one below it."""

    name: str
    type: str
    precision: int | None
    scale: int | None
    readable: bool


@dataclass(frozen=True)
class Relation:
    """A table or view of the source; `size` in bytes, 0 where it has no pages of its own. `has_xmin`: its rows say
    which transaction wrote them.

    What holds for every row: the columns of each unique key without nulls, and (column, table, column) of foreign keys.
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


RELATION = """
SELECT c.oid, CASE WHEN c.relkind IN ('r', 'm') AND am.amname = 'heap' THEN pg_relation_size(c.oid) ELSE 0 END,
       current_setting('block_size')::int, c.relkind IN ('r', 'm', 'p')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""


# typmod of numeric: ((precision << 16) | (scale & 0x7ff)) + 4, the scale a signed 11-bit number.
COLUMNS = """
WITH RECURSIVE base AS (
  SELECT a.attnum, a.attname, a.atttypid AS typid, a.atttypmod AS typmod FROM pg_attribute a
  WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT b.attnum, b.attname, t.typbasetype, CASE WHEN b.typmod = -1 THEN t.typtypmod ELSE b.typmod END
  FROM base b JOIN pg_type t ON t.oid = b.typid WHERE t.typtype = 'd'
)
SELECT b.attname, CASE WHEN t.typtype = 'e' THEN 'enum' WHEN n.nspname <> 'pg_catalog' THEN 'other' ELSE t.typname END,
       CASE WHEN t.typname = 'numeric' AND b.typmod > 0 THEN ((b.typmod - 4) >> 16) & 65535 END,
       CASE WHEN t.typname = 'numeric' AND b.typmod > 0 THEN (((b.typmod - 4) & 2047) # 1024) - 1024 END,
       has_column_privilege(%(oid)s::oid, b.attnum, 'SELECT')
FROM base b JOIN pg_type t ON t.oid = b.typid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype <> 'd' ORDER BY b.attnum
"""


# Of a table that others inherit from, constraints say nothing about the heirs' rows; an index that is not valid, as of
# a partitioned table before all its partitions have it, says nothing at all; nor does a NOT NULL that is not.
ALONE = "(r.relkind = 'p' OR NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = r.oid))"


FOREIGN = f"""
SELECT (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1]), f.relname,
       (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.confrelid AND a.attnum = c.confkey[1])
FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid
JOIN pg_class f ON f.oid = c.confrelid AND f.relnamespace = r.relnamespace
JOIN pg_index i ON i.indexrelid = c.conindid AND i.indisvalid
WHERE c.conrelid = %s AND c.contype = 'f' AND c.convalidated AND cardinality(c.conkey) = 1 AND {ALONE}
"""


UNIQUE = f"""
SELECT array_agg(a.attname::text) FROM pg_index i JOIN pg_class r ON r.oid = i.indrelid
JOIN unnest(i.indkey) WITH ORDINALITY k (attnum, nth) ON k.nth <= i.indnkeyatts
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND a.attnotnull AND NOT EXISTS (
  SELECT FROM pg_constraint n
  WHERE n.conrelid = r.oid AND n.contype = 'n' AND NOT n.convalidated AND n.conkey = ARRAY[k.attnum])
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND {ALONE}
GROUP BY i.indexrelid HAVING count(a.attname) = count(*)
"""


def describe(snapshot: Snapshot, name: str) -> Relation | None:
    """The relation as the catalogue has it, or None where there is none of that name."""
    with snapshot.connection.cursor() as cursor:
        cursor.execute(RELATION, (snapshot.schema, name))
        found = cursor.fetchone()
        if found is None:
            return None
        oid, size, block, has_xmin = found
        cursor.execute(COLUMNS, {"oid": oid})
        columns = tuple(SourceColumn(*row) for row in cursor.fetchall())
        cursor.execute(FOREIGN, (oid,))
        foreign = frozenset(cursor.fetchall())
        cursor.execute(UNIQUE, (oid,))
        unique = frozenset(frozenset(names) for (names,) in cursor.fetchall())
    return Relation(oid, snapshot.schema, name, columns, size, size // block, has_xmin, unique, foreign)
