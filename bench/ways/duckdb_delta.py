"""DuckDB with its PostgreSQL scanner, and delta-rs: no JVM, no checks.

Called with the layers; LAKE is the folder to fill. Prints the seconds of its steps, start-up aside.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import duckdb
import duckdb_extension_postgres_scanner as scanner
from deltalake import DeltaTable, write_deltalake

ATTACHED = {
    "host": "LAKEHOUSE_POSTGRES__HOST",
    "port": "LAKEHOUSE_POSTGRES__PORT",
    "dbname": "LAKEHOUSE_POSTGRES__DATABASE",
    "user": "LAKEHOUSE_POSTGRES__USER",
    "password": "LAKEHOUSE_POSTGRES__PASSWORD",
}
SOURCE = {
    "associado": "SELECT * FROM {}",
    "conta": "SELECT * REPLACE (tipo::varchar AS tipo) FROM {}",
    "cartao": "SELECT * FROM {}",
    "movimento": "SELECT * FROM {}",
}
TIDY = "regexp_replace(trim({0}), '\\s+', ' ', 'g') AS {0}"
CLEAN = {
    "associado": f"""SELECT id AS id_associado, {TIDY.format("nome")}, {TIDY.format("sobrenome")}, idade,
        lower(trim(email)) AS email FROM {{}}""",
    "conta": f"SELECT id AS id_conta, {TIDY.format('tipo')}, data_criacao, id_associado FROM {{}}",
    "cartao": f"""SELECT id AS id_cartao,
        repeat('*', length(digits) - 4) || right(digits, 4) AS num_cartao, {TIDY.format("nom_impresso")},
        data_criacao, id_conta, id_associado
        FROM (SELECT *, regexp_replace(num_cartao, '[ -]', '', 'g') AS digits FROM {{}})""",
    "movimento": """SELECT id AS id_movimento, vlr_transacao, trim(des_transacao) AS des_transacao, data_movimento,
        id_cartao FROM {}""",
}
FLAT = """
SELECT s.nome AS nome_associado, s.sobrenome AS sobrenome_associado, s.idade AS idade_associado,
       m.vlr_transacao AS vlr_transacao_movimento, m.des_transacao AS des_transacao_movimento, m.data_movimento,
       c.num_cartao AS numero_cartao, c.nom_impresso AS nome_impresso_cartao, c.data_criacao AS data_criacao_cartao,
       a.tipo AS tipo_conta, a.data_criacao AS data_criacao_conta, m.id_movimento AS _id_movimento
FROM {movimento} m JOIN {cartao} c USING (id_cartao) JOIN {conta} a USING (id_conta)
     JOIN {associado} s ON s.id_associado = c.id_associado
"""
CSV = "FORMAT csv, HEADER true, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR ''"
Connection = duckdb.DuckDBPyConnection


def attach(db: Connection, environment: Mapping[str, str] = os.environ) -> None:
    (extension,) = Path(scanner.__file__).parent.rglob("*.duckdb_extension")
    db.execute(f"LOAD '{extension}'")
    words = " ".join(f"{word}={environment[name]}" for word, name in ATTACHED.items())
    db.execute(f"ATTACH '{words}' AS pg (TYPE postgres, READ_ONLY)")


def source(schema: str) -> dict[str, str]:
    """SQL that reads each table."""
    return {table: sql.format(f'pg."{schema}".{table}') for table, sql in SOURCE.items()}


def stored(path: str | Path) -> str:
    """SQL that reads the files of a table's head."""
    return f"read_parquet({DeltaTable(path).file_uris()})"


def write(db: Connection, sql: str, lake: str, layer: str, table: str) -> None:
    write_deltalake(f"{lake}/{layer}/{table}", db.execute(sql).to_arrow_reader(200_000), mode="overwrite")


def bronze(db: Connection, lake: str) -> None:
    attach(db)
    for table, sql in source(os.environ["LAKEHOUSE_POSTGRES__SCHEMA"]).items():
        write(db, sql, lake, "bronze", table)


def silver(db: Connection, lake: str) -> None:
    for table, sql in CLEAN.items():
        write(db, sql.format(stored(f"{lake}/bronze/{table}")), lake, "silver", table)


def gold(db: Connection, lake: str) -> None:
    flat = FLAT.format(**{table: stored(f"{lake}/silver/{table}") for table in CLEAN})
    write(db, flat, lake, "gold", "movimento_flat")


def csv(db: Connection, lake: str) -> None:
    Path(lake, "csv").mkdir()
    ordered(db, stored(f"{lake}/gold/movimento_flat"), f"{lake}/csv/movimento_flat.csv")


def ordered(db: Connection, flat: str, file: str) -> None:
    """Writes gold's rows (SQL) as a CSV in order of their key."""
    rows = f"SELECT * EXCLUDE (_id_movimento) FROM {flat} ORDER BY _id_movimento"
    db.execute(f"COPY ({rows}) TO '{file}' ({CSV})")


STEPS = {step.__name__: step for step in (bronze, silver, gold, csv)}


def main(names: list[str]) -> None:
    db = duckdb.connect()
    for name in names:
        began = time.monotonic()
        STEPS[name](db, os.environ["LAKE"])
        print(json.dumps({name: time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
