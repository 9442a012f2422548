"""The table of docs/types.md, line by line, on a real server: for any zone the same bytes."""

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from conf.settings import PROJECT, Postgres
from pipelines.core.errors import SourceFault
from pipelines.lake import delta
from tests.support.lake import Lake
from tests.support.process import Cli, connection_settings
from tests.support.source import LOOSE, connected, execute

DOCUMENT = (PROJECT / "docs/types.md").read_text("utf-8")
LINES = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in DOCUMENT.splitlines()
    if line.startswith("| `")
]
OWN = {
    "enum": "humor",
    "domain over text": "apelido",
    "domain over numeric(12,3)": "valor",
    "domain over timestamp": "quando",
    "composite": "par",
}
TYPES = (
    "CREATE TYPE humor AS ENUM ('bom', 'd''oro')",
    "CREATE DOMAIN apelido AS text",
    "CREATE DOMAIN valor_base AS numeric(12,3)",
    "CREATE DOMAIN valor AS valor_base CHECK (VALUE > 0)",
    "CREATE DOMAIN quando AS timestamp",
    "CREATE TYPE par AS (a int, b text, c date)",
)
# Not every server has them.
EXTRA = {"xml", "citext", "hstore"}
ZONES = ("UTC", "America/Sao_Paulo", "Asia/Kathmandu")


def quoted(cell: str) -> str:
    """The text between the backticks of a cell."""
    match = re.search("`(.*)`", cell)
    return match[1] if match else ""


def sql_type(name: str) -> str:
    return OWN.get(name, name)


def available(address: Postgres) -> list[tuple[str, ...]]:
    """The lines whose type the server has."""
    lines = []
    with connected(address) as connection, connection.cursor() as cursor:
        for line in LINES:
            try:
                cursor.execute(f"SELECT %s::{sql_type(quoted(line[0]))}", (quoted(line[2]),))
            except psycopg2.Error:
                assert quoted(line[0]) in EXTRA, line
            else:
                lines.append(line)
    return lines


@pytest.fixture
def zoo(database: Postgres) -> Iterator[list[tuple[str, ...]]]:
    """A source whose members have one column a line; gives the lines."""
    execute(database, *LOOSE, *TYPES)
    lines = available(database)
    columns = ", ".join(f"c{index} {sql_type(quoted(line[0]))}" for index, line in enumerate(lines))
    with connected(database) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE associado")
        cursor.execute(f"CREATE TABLE associado (id int, nome text, sobrenome text, idade int, email text, {columns})")
        values = ", ".join(f"%s::{sql_type(quoted(line[0]))}" for line in lines)
        names = ", ".join(f"c{index}" for index in range(len(lines)))
        cursor.execute(f"INSERT INTO associado (id, {names}) VALUES (1, {values})", [quoted(line[2]) for line in lines])
        cursor.execute("INSERT INTO associado (id) VALUES (2)")
    yield lines


def shown(value: Any) -> str:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, datetime):
        return str(value.replace(tzinfo=None))
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, "f") if type(value).__name__ == "Decimal" else str(value)


def test_every_line_of_the_table_is_what_arrives_whatever_the_zone(
    tmp_path: Path, database: Postgres, zoo: list[tuple[str, ...]]
) -> None:
    assert len(zoo) > 80
    files = []
    for zone in ZONES:
        execute(database, f"ALTER DATABASE {database.database} SET TimeZone = '{zone}'")
        env = connection_settings(database) | {"TZ": zone, "LAKEHOUSE_ROOT": zone.replace("/", "_")}
        result = Cli(tmp_path)("bronze", env=env)  # a process of its own has the zone from its start
        assert result.returncode == 0, result.stderr
        path = tmp_path / env["LAKEHOUSE_ROOT"] / "bronze/cartoes/associado"
        files += delta.file_paths(path, 0)
    schema = json.loads(DeltaTable(path).schema().to_json())
    types = {field["name"]: field["type"] for field in schema["fields"]}
    row, nulls = pq.ParquetFile(files[0]).read().to_pylist()
    rescued = json.loads(row["_rescued"])
    spark_names = {"short": "smallint", "long": "bigint"}
    read_lines = {}
    for index, line in enumerate(zoo):
        name = f"c{index}"
        value = f"rescued `{rescued[name]}`" if name in rescued else f"`{shown(row[name])}`"
        assert (row[name] is None) == (name in rescued)
        read_lines[line] = (line[0], f"`{spark_names.get(types[name], types[name])}`", line[2], value)
    assert list(read_lines) == list(read_lines.values())
    assert all(value is None for name, value in nulls.items() if name not in ("id", "_batch", "_deleted"))
    assert len({hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}) == 1


def test_a_declared_amount_may_be_money(lakehouse: Lake) -> None:
    execute(
        lakehouse.address,
        *LOOSE,
        "ALTER TABLE movimento ALTER vlr_transacao TYPE money USING NULL",
        "INSERT INTO movimento VALUES (1, '1234.56'), (2, '99999999.99'), (3, '100000000.00'), (4, '-0.01')",
    )
    lakehouse.run("bronze")
    rows = {row["id"]: (row["vlr_transacao"], row["_rescued"]) for row in lakehouse.table("bronze", "movimento")}
    assert {key: str(value) for key, (value, _) in rows.items()} == {
        1: "1234.56",
        2: "99999999.99",
        3: "None",
        4: "-0.01",
    }
    assert json.loads(rows[3][1]) == {"vlr_transacao": "$100,000,000.00"}


def test_undecodable_bytes_are_an_error_that_names_the_table(server: Postgres, lakehouse: Lake) -> None:
    name = f"{lakehouse.address.database}_ascii"
    execute(server, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    try:
        old = Lake(lakehouse.folder, server.model_copy(update={"database": name}), lakehouse.spark)
        execute(old.address, *LOOSE, r"INSERT INTO associado (id, nome) VALUES (1, E'Jos\xe9')")
        with pytest.raises(
            SourceFault, match=r"reading public.associado from .*SQLSTATE 22021, character_not_in_repertoire"
        ):
            old.run("bronze")
        execute(old.address, r"UPDATE associado SET nome = E'Jos\xc3\xa9'")
        old.run("bronze")
        assert old.table("bronze", "associado")[0]["nome"] == "José"
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")
