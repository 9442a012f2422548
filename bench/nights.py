"""Nights after the first: what a run costs when nothing changed, when rows were added, when rows were changed."""

from dataclasses import replace
from pathlib import Path

from bench import check
from bench.rivals import Way
from bench.rounds import Numbers, empty_lake, filled, show_progress
from bench.source import Source, execute, settle
from pipelines.core import catalogue
from pipelines.core.sql import identifier
from pipelines.seed.postgres import ddl

NEWEST = """
INSERT INTO {0}.movimento (id, {1}) SELECT (SELECT max(id) FROM {0}.movimento) + row_number() OVER (ORDER BY id), {1}
FROM {0}.movimento ORDER BY id LIMIT (SELECT count(*) / 100 FROM {0}.movimento)
"""
COLUMNS = "vlr_transacao, des_transacao, data_movimento, id_cartao"
SPREAD = "UPDATE {0}.movimento SET vlr_transacao = vlr_transacao + 1 WHERE id % 100 = 0"
# What happened at the source before each run; the first fills the lake.
NIGHTS = {"whole": "", "nothing changed": "", "1 % newest": NEWEST, "1 % spread": SPREAD}


def nights(source: Source, way: Way, count: int, folder: Path) -> list[dict[str, Numbers]]:
    """The numbers of each night, for each round; a round's nights share a lake and a copy of the source."""
    results = []
    for number in range(count):
        night = replace(source, schema=f"night_{source.rows}")
        _copy(source, night)
        numbers: dict[str, Numbers] = {}
        try:
            with empty_lake(folder) as lake:
                for name, event in NIGHTS.items():
                    if event:
                        execute(night.server, event.format(night.schema, COLUMNS))
                        settle(night.server)
                    contents = check.expected(night, folder, ("gold",))
                    numbers[name] = filled(replace(way, layers=("gold",)), night, lake, folder, contents, beside=False)
                    show_progress(f"night {source.rows:,}, round {number + 1}", name, numbers[name])
        finally:
            execute(source.server, f"DROP SCHEMA {night.schema} CASCADE")
        results.append(numbers)
    return results


def _copy(source: Source, night: Source) -> None:
    """Copies the tables into a schema of their own."""
    tables, schema = catalogue.tables_of("bronze", "cartoes"), night.schema
    # As replica the server checks no reference, which would take long.
    statements = [f"DROP SCHEMA IF EXISTS {schema} CASCADE", f"CREATE SCHEMA {schema}", *ddl(tables, schema, "")]
    statements.append("SET session_replication_role = replica")
    for table in tables:
        values = [
            identifier(column.name)
            + (f"::text::{schema}.{identifier(f'{column.name}_{table.name}')}" if column.labels else "")
            for column in table.columns
        ]
        names = ", ".join(identifier(column.name) for column in table.columns)
        target, origin = (f"{identifier(name)}.{identifier(table.source_name)}" for name in (schema, source.schema))
        statements.append(f"INSERT INTO {target} ({names}) SELECT {', '.join(values)} FROM {origin} ORDER BY 1")
    execute(night.server, *statements)
    settle(night.server)
