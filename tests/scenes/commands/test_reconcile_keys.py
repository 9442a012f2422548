"""Rows that nobody changed agree in `make reconcile`, whatever the types of their keys."""

import pytest

from conf.contract import Column, Table
from conf.settings import Postgres
from pipelines.commands.reconcile.reconcile import reconcile
from pipelines.core import catalogue
from pipelines.core.catalogue import Entry
from pipelines.core.console import Report
from pipelines.core.types import TYPES, type_of
from tests.support.lake import Lake
from tests.support.source import LOOSE, connected, execute

KINDS = (*TYPES, "decimal(10,2)", "decimal(38,0)", "decimal(5,5)", "decimal(38,38)")
MORE = {
    "double": ("1e23", "9007199254740993", "1e-7"),
    "float": ("1e10", "16777216"),
    "binary": (r"\x2c7c5c",),
    "string": ("", "a|b", "a,b", "çã 😀", "\\", "\\N"),
    "decimal(5,5)": ("0.5", "-0.5", "0"),
    "decimal(10,2)": ("0.5", "-0.05"),
}
KEY = Column("id", "string", "Key", key=True)
VALUE = Column("v", "string", "Value", nullable=True)


def table_of(name: str, *keys: str) -> Table:
    columns = (Column(f"k{number}", kind, "Key", key=True) for number, kind in enumerate(keys))
    return Table(f"bronze.chaves.{name}", "One row per key.", (*columns, VALUE))


SINGLE = {f"t{number}": kind for number, kind in enumerate(KINDS)}
TABLES = [
    *(table_of(name, kind) for name, kind in SINGLE.items()),
    table_of("textos", "string", "string"),
    table_of("todos", *KINDS),
]


def rows_of(table: Table) -> list[list[str | None]]:
    """Keys that differ, as PostgreSQL reads them; the last one is null."""
    if table.name == "textos":
        return [
            ["a,b", "c"],
            ["a", "b,c"],
            ["a\\", ",b"],
            ["a\\,", "b"],
            ["a", None],
            [None, "a"],
            ["", "a"],
            ["a", ""],
        ]
    keys = [column.type for column in table.columns if column.key]
    texts = [[*type_of(kind).samples, *MORE.get(kind, ()), None] for kind in keys]
    return [[each[min(row, len(each) - 1)] for each in texts] for row in range(max(map(len, texts)))]


@pytest.fixture
def chaves(lakehouse: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setattr(
        catalogue, "entries", lambda layer: tuple(Entry(table, None) for table in TABLES if layer == "bronze")
    )
    lakehouse.domain = "chaves"
    with connected(lakehouse.address) as connection, connection.cursor() as cursor:
        for table in TABLES:
            columns = {column.name: type_of(column.type).postgres for column in table.columns}
            cursor.execute(f"CREATE TABLE {table.name} ({', '.join(' '.join(each) for each in columns.items())})")
            for number, row in enumerate(rows_of(table)):
                cursor.execute(f"INSERT INTO {table.name} VALUES ({'%s, ' * len(row)} 'v{number}')", row)
        # A result of arithmetic has other bits than the NaN that somebody writes.
        cursor.execute("INSERT INTO t5 SELECT x - x, 'w' FROM (VALUES ('inf'::float8)) v(x)")
    lakehouse.run("bronze")
    return lakehouse


def reconciled(lakehouse: Lake, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with Report() as report:
        reconcile(lakehouse.settings(), (lakehouse.domain,), report)
    return capsys.readouterr().out


def test_keys_of_every_type_agree_until_a_row_changes(chaves: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert "everything agrees" in reconciled(chaves, capsys)
    swap = "UPDATE textos SET v = CASE v WHEN 'v{0}' THEN 'v{1}' ELSE 'v{0}' END WHERE v IN ('v{0}', 'v{1}')"
    for pair in ((0, 1), (4, 5)):  # keys of which a plain list is the same text
        execute(chaves.address, swap.format(*pair))
        assert "source.textos: " in reconciled(chaves, capsys)
        execute(chaves.address, swap.format(*pair))
    assert "everything agrees" in reconciled(chaves, capsys)


def test_a_database_of_another_encoding_agrees(
    server: Postgres, lakehouse: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{lakehouse.address.database}_latin1"
    execute(server, f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    try:
        lakehouse.address = server.model_copy(update={"database": name})
        execute(lakehouse.address, *LOOSE, "INSERT INTO associado (id, nome) VALUES (1, 'José')")
        lakehouse.run("bronze")
        assert "everything agrees" in reconciled(lakehouse, capsys)
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")
