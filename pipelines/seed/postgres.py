"""Creates the source's tables from the bronze contracts and fills them with fake rows, in one transaction."""

import csv
import io
from typing import Any

from psycopg2.extensions import connection as Connection

import conf
from conf.contract import Column, Table
from conf.settings import Postgres, Settings
from pipelines.core.console import Report
from pipelines.core.errors import SourceFault
from pipelines.core.sql import identifier, pg_text
from pipelines.seed import fake
from pipelines.sources.postgres.connection import connect

SQL_TYPES = {"bigint": "bigint", "integer": "integer", "string": "text", "timestamp_ntz": "timestamp"}


def sql_type(column: Column) -> str:
    """The PostgreSQL type of a contract's type; of labels, an enum's name is made elsewhere."""
    if column.decimal:
        return f"numeric({column.decimal[0]}, {column.decimal[1]})"
    return SQL_TYPES[column.type]


def ddl(tables: tuple[Table, ...], schema: str, mark: str) -> list[str]:
    """Statements that create the tables: enums, keys, references, comments; `mark` says that they are ours."""
    statements = []
    for table in tables:
        name = f"{identifier(schema)}.{identifier(table.source_name)}"
        parts = []
        for column in table.columns:
            kind = sql_type(column)
            if column.labels:
                kind = f"{identifier(schema)}.{identifier(f'{column.name}_{table.name}')}"
                statements.append(f"CREATE TYPE {kind} AS ENUM ({', '.join(map(pg_text, column.labels))})")
            points = ""
            if column.reference:
                parent = column.reference.table
                points = (
                    f" REFERENCES {identifier(schema)}.{identifier(parent.source_name)} ({identifier(parent.keys[0])})"
                )
            parts.append(f"{identifier(column.name)} {kind}{'' if column.nullable else ' NOT NULL'}{points}")
        parts.append(f"PRIMARY KEY ({', '.join(map(identifier, table.keys))})")
        statements.append(f"CREATE TABLE {name} ({', '.join(parts)})")
        statements.append(f"COMMENT ON TABLE {name} IS{pg_text(f'{table.comment} {mark}')}")
        statements += [
            f"COMMENT ON COLUMN {name}.{identifier(column.name)} IS{pg_text(column.comment)}"
            for column in table.columns
        ]
    return statements


def drops(tables: tuple[Table, ...], schema: str) -> list[str]:
    """Statements that remove what `ddl` created."""
    dropped = [
        f"DROP TABLE IF EXISTS {identifier(schema)}.{identifier(table.source_name)}" for table in reversed(tables)
    ]
    labelled = [(table, column) for table in tables for column in table.columns if column.labels]
    return dropped + [
        f"DROP TYPE IF EXISTS {identifier(schema)}.{identifier(f'{column.name}_{table.name}')}"
        for table, column in labelled
    ]


FOUND = """
SELECT c.relname, coalesce(obj_description(c.oid, 'pg_class'), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY(%s)
"""


def seed(settings: Settings, server: Postgres, tables: tuple[Table, ...], embedded: bool, report: Report) -> None:
    """Creates and fills the tables; does nothing where they are there already with the same seed and size.

    Tables that the seed made with another seed or size are replaced in the embedded server only. Raises SourceFault
    where a table is there that the seed did not make.
    """
    size, schema = settings.seed, settings.schema_name
    place = f"{server.address}, schema {schema}"
    ours = "(fake data by lakehouse "
    mark = f"{ours}{conf.__version__}: {size.movimentos} movements, seed {size.seed})"
    with connect(server, copies=True) as connection, connection.cursor() as cursor:
        cursor.execute(FOUND, (schema, [table.source_name for table in tables]))
        found: dict[str, str] = dict(cursor.fetchall())
        foreign = sorted(name for name, comment in found.items() if ours not in comment)
        if foreign:
            raise SourceFault(
                f"{place}: {', '.join(foreign)} was not made by `make seed`; choose another schema or database"
            )
        if len(found) == len(tables) and all(comment.endswith(mark) for comment in found.values()):
            report.step(f"source: {size.movimentos:,} movements of seed {size.seed} are there already")
            return
        if found and not embedded:
            raise SourceFault(f"{place}: fake tables of another size or seed are there; drop them first")
        cursor.execute("BEGIN")
        cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,))
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE SCHEMA {identifier(schema)}")
        for statement in (drops(tables, schema) if found else []) + ddl(tables, schema, mark):
            cursor.execute(statement)
        _fill(connection, settings, tables, report)
        cursor.execute("COMMIT")
        cursor.execute(
            f"ANALYZE {', '.join(f'{identifier(schema)}.{identifier(table.source_name)}' for table in tables)}"
        )


def _fill(connection: Connection, settings: Settings, tables: tuple[Table, ...], report: Report) -> None:
    written: dict[str, int] = {}
    with connection.cursor() as cursor:
        for table, rows in fake.batches(tables, settings.seed.movimentos, settings.seed.seed):
            columns = ", ".join(identifier(column.name) for column in table.columns)
            name = f"{identifier(settings.schema_name)}.{identifier(table.source_name)}"
            cursor.copy_expert(f"COPY {name} ({columns}) FROM STDIN (FORMAT csv)", as_csv(rows))
            report.progress("source", table.name, len(rows))
            written[table.name] = written.get(table.name, 0) + len(rows)
    for table in tables:
        report.step(f"source.{table.name}: {written[table.name]:,} fake rows")


def as_csv(rows: list[tuple[Any, ...]]) -> io.StringIO:
    """Rows in COPY's CSV: None is an empty field."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    buffer.seek(0)
    return buffer
