"""Creates the source's tables from the bronze contracts and fills them with fake rows, in one transaction."""

import csv
import io
from typing import Any

import conf
from conf.contract import Column, Table
from conf.settings import Postgres, Settings
from pipelines.core.console import Report
from pipelines.core.errors import SourceFault
from pipelines.core.sql import identifier, postgres_literal
from pipelines.core.types import type_of
from pipelines.seed import fake
from pipelines.sources.postgres.connection import connect


def ddl(tables: tuple[Table, ...], schema: str, mark: str) -> list[str]:
    """Statements that create the tables: enums, keys, references, comments; `mark` says that they are ours."""
    statements = []
    for table in tables:
        name = _in_schema(schema, table.source_name)
        parts = []
        for column in table.columns:
            kind, points = type_of(column.type).postgres, ""
            if column.labels:
                kind = _enum(schema, table, column)
                statements.append(f"CREATE TYPE {kind} AS ENUM ({', '.join(map(postgres_literal, column.labels))})")
            if column.reference:
                parent = column.reference.table
                points = f" REFERENCES {_in_schema(schema, parent.source_name)} ({identifier(parent.keys[0])})"
            parts.append(f"{identifier(column.name)} {kind}{'' if column.nullable else ' NOT NULL'}{points}")
        parts.append(f"PRIMARY KEY ({', '.join(map(identifier, table.keys))})")
        statements.append(f"CREATE TABLE {name} ({', '.join(parts)})")
        statements.append(f"COMMENT ON TABLE {name} IS{postgres_literal(f'{table.comment} {mark}')}")
        statements += [
            f"COMMENT ON COLUMN {name}.{identifier(column.name)} IS{postgres_literal(column.comment)}"
            for column in table.columns
        ]
    return statements


def drops(tables: tuple[Table, ...], schema: str) -> list[str]:
    """Statements that remove what `ddl` created."""
    enums = [_enum(schema, table, column) for table in tables for column in table.columns if column.labels]
    return [f"DROP TABLE IF EXISTS {_all(tables, schema)}", *(f"DROP TYPE IF EXISTS {enum}" for enum in enums)]


def _all(tables: tuple[Table, ...], schema: str) -> str:
    return ", ".join(_in_schema(schema, table.source_name) for table in tables)


def _in_schema(schema: str, name: str) -> str:
    return f"{identifier(schema)}.{identifier(name)}"


def _enum(schema: str, table: Table, column: Column) -> str:
    """The type of a column that has labels."""
    return _in_schema(schema, f"{column.name}_{table.name}")


COMMENTS = """SELECT relname, coalesce(obj_description(oid, 'pg_class'), '')
FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relname = ANY(%s)"""


def seed(settings: Settings, server: Postgres, tables: tuple[Table, ...], embedded: bool, report: Report) -> None:
    """Creates and fills the tables; does nothing if they exist already with the same seed and size.

    Tables that the seed made with another seed or size are replaced in the embedded server only. Raises SourceFault
    if a table exists that the seed did not make.
    """
    size, schema = settings.seed, settings.schema_name
    place = f"{server.address}, schema {schema}"
    ours = "(fake data by lakehouse "
    mark = f"{ours}{conf.__version__}: {size.movimentos} movements, seed {size.seed})"
    with connect(server, copies=True) as connection, connection.cursor() as cursor:
        cursor.execute(COMMENTS, (identifier(schema), [table.source_name for table in tables]))
        comments: dict[str, str] = dict(cursor.fetchall())
        foreign = sorted(name for name, comment in comments.items() if ours not in comment)
        if foreign:
            raise SourceFault(
                f"{place}: {', '.join(foreign)} was not made by `make seed`; choose another schema or database"
            )
        if len(comments) == len(tables) and all(comment.endswith(mark) for comment in comments.values()):
            report.step(f"source: {size.movimentos:,} movements of seed {size.seed} are there already")
            return
        if comments and not embedded:
            raise SourceFault(f"{place}: fake tables of another size or seed are there; drop them first")
        cursor.execute("BEGIN")
        cursor.execute("SELECT FROM pg_namespace WHERE nspname = %s", (schema,))
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE SCHEMA {identifier(schema)}")
        for statement in (drops(tables, schema) if comments else []) + ddl(tables, schema, mark):
            cursor.execute(statement)
        for table, rows in fake.reported(settings, tables, report):
            columns = ", ".join(identifier(column.name) for column in table.columns)
            name = _in_schema(schema, table.source_name)
            cursor.copy_expert(f"COPY {name} ({columns}) FROM STDIN (FORMAT csv)", as_csv(rows))
        cursor.execute("COMMIT")
        cursor.execute(f"ANALYZE {_all(tables, schema)}")
    for name, number in fake.sizes(tables, size.movimentos).items():
        report.step(f"source.{name}: {number:,} fake rows")


def as_csv(rows: list[tuple[Any, ...]]) -> io.StringIO:
    """Rows in COPY's CSV: None is an empty field."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    buffer.seek(0)
    return buffer
