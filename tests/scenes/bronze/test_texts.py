"""Every type of the server that is no type of bronze arrives as the text that PostgreSQL prints of its values."""

import csv
import io
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from conf.settings import Postgres
from pipelines.core.sql import identifier, postgres_literal
from pipelines.sources.postgres.connection import connect
from pipelines.sources.postgres.snapshot import describe, take_snapshot
from pipelines.sources.postgres.transaction import SNAPSHOT, begin
from pipelines.sources.postgres.types import read_as
from tests.support.lake import Lake
from tests.support.source import LOOSE, connected, execute, query

# Values of base types, as a person writes them; of a type that is not here, one that its category takes.
SAMPLES = {
    "bool": ("t", "f"),
    "bytea": (r"\x00ff41", r"\x", r"\x5c27"),
    "char": ("x", r"\377", "", r"\\"),
    "name": ('a"b', "Nome"),
    "json": ('{"b": 1,  "a": "ç"}', "null"),
    "jsonb": ('{"b": 1,  "a": "ç"}', "null"),
    "jsonpath": ("$.a[*] ? (@ > 1)",),
    "xml": ('<?xml version="1.0" encoding="latin1"?><a>é</a>', "<a/>"),
    "inet": ("10.0.0.1", "10.0.0.1/24", "::1", "::ffff:1.2.3.4/128"),
    "cidr": ("10.0.0.0/24", "10.0.0.1/32", "::/0"),
    "macaddr": ("08:00:2b:01:02:03",),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "uuid": ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",),
    "float4": ("-0", "NaN", "1e-45", "0.1"),
    "float8": ("-0", "Infinity", "5e-324", "1e23"),
    "numeric": ("1.50", "NaN", "-Infinity", "1e-5"),
    "money": ("-1234.5", "0"),
    "date": ("0044-03-15 BC", "infinity", "2024-02-29"),
    "time": ("24:00:00", "12:00:00.5"),
    "timetz": ("12:00:00-03",),
    "timestamp": ("2018-11-04 00:30:00.5", "-infinity"),
    "timestamptz": ("2018-11-04 00:30:00-03", "infinity"),
    "interval": ("1 year -2 mons 3 days -04:05:06.789", "PT36H", "-1 s"),
    "bpchar": ("ab ", ""),
    "bit": ("1",),
    "varbit": ("101", ""),
    "regclass": ("pg_catalog.pg_class", "public.associado"),
    "regtype": ("public.st", "integer", "hostil.inet"),
    "regproc": ("public.st_texto",),
    "regprocedure": ("public.st_texto(public.st)",),
    "regoper": ("pg_catalog.#-",),
    "regoperator": ("pg_catalog.+(integer,integer)",),
    "regnamespace": ("hostil",),
    "regconfig": ("english",),
    "regdictionary": ("simple",),
    "regcollation": ('"C"',),
    "regrole": ("pg_monitor",),
    "aclitem": ("pg_monitor=r/pg_monitor",),
    "tid": ("(1,2)",),
    "pg_lsn": ("16/B374D848",),
    "pg_snapshot": ("10:20:10,14",),
    "txid_snapshot": ("10:20:10,14",),
    "refcursor": ("c",),
    "tsvector": ("a:1 'b c':2A",),
    "tsquery": ("a & !b:*",),
    "point": ("(1.5,-2)",),
    "lseg": ("((0,0),(1,1))",),
    "path": ("[(0,0),(1,1)]", "((0,0),(1,1))"),
    "box": ("(1,1),(0,0)",),
    "polygon": ("((0,0),(1,1),(1,0))",),
    "line": ("{1,2,3}",),
    "circle": ("<(1,2),3>",),
    "oidvector": ("1 2",),
    "int2vector": ("1 2",),
    "st": ("a", "b c"),
    "meu": ("um 'texto'",),
    "enderecos": ("10.0.0.1", "10.0.0.0/8"),
    "caixa": ("10.0.0.1",),
    "par": ("(,)", "(10.0.0.1,a)", '("10.0.0.1","b c")'),
    "nada": ("()",),
    "dentro": ('("(10.0.0.1,a)","{10.0.0.1,NULL}","[10.0.0.1,10.0.0.2]","$1.50","\\\\x00")', "(,,,,)"),
    "faixa": ("[10.0.0.1,10.0.0.9)", "empty"),
    "faixas": ("{[10.0.0.1,10.0.0.2],(10.0.0.5,)}", "{}"),
    "yes_or_no": ("YES",),
}
OF_CATEGORY = {"N": ("7", "0"), "S": ("ab ", ""), "D": ("2024-02-29 12:00:00+00",), "R": ("empty",)}
# Values that nobody can write: of the catalogue's own rows, as SQL.
OF_CATALOGUE = {
    "pg_node_tree": "(SELECT ev_action FROM pg_rewrite LIMIT 1)",
    "pg_ndistinct": "(SELECT stxdndistinct FROM pg_statistic_ext_data)",
    "pg_dependencies": "(SELECT stxddependencies FROM pg_statistic_ext_data)",
    "pg_mcv_list": "(SELECT stxdmcv FROM pg_statistic_ext_data)",
} | dict.fromkeys(("gtsvector", "xml", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"), "NULL")

# Types of one's own, each with a cast to text that prints something else.
OWN = (
    "CREATE TABLE contado AS SELECT i % 3 AS a, i % 3 AS b FROM generate_series(1, 100) i",
    "CREATE STATISTICS contagem ON a, b FROM contado",
    "ANALYZE contado",
    "CREATE SCHEMA hostil",
    "CREATE TYPE st AS ENUM ('a', 'b c')",
    "CREATE TYPE par AS (ip inet, st st)",
    "CREATE TYPE nada AS ()",
    "CREATE TYPE faixa AS RANGE (SUBTYPE = inet, MULTIRANGE_TYPE_NAME = faixas)",
    "CREATE TYPE dentro AS (par par, ips inet[], faixa faixa, preco money, bytes bytea)",
    "CREATE DOMAIN enderecos AS inet",
    "CREATE DOMAIN caixa AS enderecos CHECK (VALUE <> '0.0.0.0')",
    "CREATE TYPE meu",
    "CREATE FUNCTION meu_in(cstring) RETURNS meu LANGUAGE internal IMMUTABLE STRICT AS 'textin'",
    "CREATE FUNCTION meu_out(meu) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'",
    "CREATE TYPE meu (INPUT = meu_in, OUTPUT = meu_out, LIKE = text)",
    *(
        f"CREATE FUNCTION {name}_texto({name}) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'cast' $$;"
        f"CREATE CAST ({name} AS text) WITH FUNCTION {name}_texto({name}) AS IMPLICIT"
        for name in ("st", "par", "nada", "faixa", "faixas", "dentro", "meu")
    ),
    # Types and functions that have the names of PostgreSQL's own, where the path of every session finds them first.
    *(f"CREATE TYPE hostil.{identifier(name)} AS ENUM ('x')" for name in ("inet", "text", "int4", "numeric", "bool")),
    "CREATE TYPE hostil.money AS (a int)",
    "CREATE DOMAIN hostil.date AS bytea",
    "CREATE FUNCTION hostil.concat(\"any\") RETURNS text LANGUAGE internal AS 'pgsql_version'",
)

TYPES = """
SELECT t.oid::int, n.nspname, t.typname, t.typtype::text, t.typcategory::text, t.typelem::int, t.typbasetype::int, format_type(t.oid, NULL),
  (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)::int
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype <> 'p' AND t.typisdefined AND n.nspname !~ '^pg_t' ORDER BY t.oid
"""


def samples(types: dict[int, Any], oid: int) -> list[str]:
    """SQL of values of a type, the last of which is null."""
    _, schema, name, kind, category, element, base, written, members = types[oid]
    if name in OF_CATALOGUE:
        return [OF_CATALOGUE[name], "NULL"]
    if schema != "hostil" and name in SAMPLES:
        texts = SAMPLES[name]
    elif category == "A" and element:
        return [f"ARRAY[{value}, NULL]::{written}" for value in samples(types, element)[:-1]] + ["NULL"]
    elif kind == "d":
        return samples(types, base)
    elif kind == "c":
        texts = (f"({',' * (members - 1)})",)
    else:
        texts = {"e": ("x",), "m": ("{}",)}.get(kind) or OF_CATEGORY.get(category, ("7",))
    return [f"{postgres_literal(text)}::{written}" for text in texts] + ["NULL"]


@dataclass
class Zoo:
    """A source whose members have a column of every type that a column can have, and what PostgreSQL prints of them."""

    types: dict[str, str]
    printed: dict[str, list[str | None]]


DECLARED = {"nome": "boolean", "sobrenome": "bytea", "email": "st"}  # types of columns that the contract makes texts
ROWS, PARTS = 6, 3


@pytest.fixture
def zoo(database: Postgres) -> Zoo:
    execute(database, *LOOSE[1:], *OWN)
    types = {row[0]: row for row in query(database, TYPES)}
    columns = {name: next(oid for oid, row in types.items() if row[-2] == kind) for name, kind in DECLARED.items()}
    with connected(database) as connection, connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE associado (id int, {', '.join(' '.join(each) for each in DECLARED.items())}, idade int)"
        )
        for oid, (*_, written, _) in types.items():
            with suppress(psycopg2.errors.InvalidTableDefinition):  # rows with columns of any type
                cursor.execute(f"ALTER TABLE associado ADD t{oid} {written}")
                columns[f"t{oid}"] = oid
        values = {name: samples(types, oid) for name, oid in columns.items()}
        for row in range(ROWS * PARTS):  # each has values in some of the columns only: a page must hold it
            listed = ", ".join(
                texts[min(row // PARTS, len(texts) - 1)] if number % PARTS == row % PARTS else "NULL"
                for number, texts in enumerate(values.values())
            )
            cursor.execute(f"INSERT INTO associado (id, {', '.join(values)}) VALUES ({row}, {listed})")
        cursor.execute(f"ALTER DATABASE {database.database} SET search_path = hostil, public, pg_catalog")
    with connect(database, copies=True) as connection, connection.cursor() as cursor:
        begin(connection.rows, SNAPSHOT, 180000)
        text = io.StringIO()
        cursor.copy_expert(
            f"COPY (SELECT {', '.join(values)} FROM public.associado ORDER BY id) TO STDOUT (FORMAT csv, NULL '<>', FORCE_QUOTE *)",
            text,
        )
    cells = zip(*csv.reader(io.StringIO(text.getvalue(), newline="")), strict=True)
    printed = {
        name: [None if cell == "<>" else cell for cell in column] for name, column in zip(values, cells, strict=True)
    }
    return Zoo({name: types[oid][-2] for name, oid in columns.items()}, printed)


def test_a_text_is_what_the_type_prints_whatever_casts_and_names_there_are(lakehouse: Lake, zoo: Zoo) -> None:
    lakehouse.run("bronze")
    rows = lakehouse.table("bronze", "associado")
    texts = {
        name
        for column in lakehouse.last("bronze").table("associado").columns
        if column.type == "string" and (name := column.name) in zoo.types
    }
    assert len(texts) > 500 and {*DECLARED} <= texts
    for name in texts:
        expected = zoo.printed[name]
        if zoo.types[name] == "character":
            expected = [text and text.rstrip(" ") for text in expected]
        assert [row[name] for row in rows] == expected, zoo.types[name]
        assert "cast" not in expected


def test_any_column_but_a_float_may_be_declared_a_text(lakehouse: Lake, zoo: Zoo) -> None:
    with take_snapshot(lakehouse.address, "public", []) as snapshot:
        relation = describe(snapshot, "associado")
        assert relation is not None
        readings = {column.name: read_as(column, "string") for column in relation.columns if column.name in zoo.types}
        listed = {name: reading.value for name, reading in readings.items() if reading}
        rows = snapshot.rows(f"SELECT {', '.join(listed.values())} FROM {relation.sql} ORDER BY id")
    assert {zoo.types[name] for name in readings.keys() - listed.keys()} == {"real", "double precision"}
    for name, values in zip(listed, zip(*rows, strict=True), strict=True):
        expected = zoo.printed[name]
        if zoo.types[name] in ("character", "hostil.bpchar"):
            expected = [text and text.rstrip(" ") for text in expected]
        assert list(values) == expected, zoo.types[name]
