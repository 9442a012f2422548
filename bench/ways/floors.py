"""What no way can do without: the least that is known to be possible for a step, with no lake, no check, no log.

Called with steps; LAKE is the folder to fill, for `same_files` one that our way has filled. Prints the steps' seconds.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import duckdb
import psycopg2
from psycopg2.extensions import connection as Connection

from bench.ways.duckdb_delta import ATTACHED, CLEAN, FLAT, attach, ordered, source, stored

LAKE, SCHEMA = Path(os.environ["LAKE"]), os.environ["LAKEHOUSE_POSTGRES__SCHEMA"]
TABLE = f'"{SCHEMA}".movimento'
PAGES = f"SELECT pg_export_snapshot(), pg_relation_size('{TABLE}') / current_setting('block_size')::int"


def connected() -> Connection:
    """A connection whose transactions read a single snapshot."""
    connection = psycopg2.connect(**{word: os.environ[name] for word, name in ATTACHED.items()})
    connection.set_session("REPEATABLE READ", readonly=True)
    return connection


def copy() -> None:
    """The movements in COPY's binary form to nowhere: two readers, half of the pages each, one snapshot."""
    with closing(connected()) as connection, connection.cursor() as cursor:
        cursor.execute(PAGES)
        snapshot, pages = cursor.fetchone()
        middle = f"'({pages // 2},0)'"

        def read(half: str) -> None:
            with closing(connected()) as other, other.cursor() as reader, Path(os.devnull).open("wb") as nowhere:
                reader.execute("SET TRANSACTION SNAPSHOT %s", (snapshot,))
                reader.copy_expert(f"COPY (SELECT * FROM {TABLE} WHERE {half}) TO STDOUT (FORMAT binary)", nowhere)

        with ThreadPoolExecutor(2) as readers:
            list(readers.map(read, (f"ctid < {middle}", f"ctid >= {middle}")))


def parquet() -> None:
    """All tables from PostgreSQL to one Parquet file each."""
    (LAKE / "parquet").mkdir()
    with duckdb.connect() as db:
        attach(db)
        for table, sql in source(SCHEMA).items():
            db.execute(f"COPY ({sql}) TO '{LAKE}/parquet/{table}.parquet' (FORMAT parquet)")


def join_csv() -> None:
    """The CSV from those files: cleaned, joined, in order."""
    (LAKE / "csv").mkdir()
    files = {table: f"'{LAKE}/parquet/{table}.parquet'" for table in CLEAN}
    clean = {table: f"({sql.format(files[table])})" for table, sql in CLEAN.items()}
    with duckdb.connect() as db:
        ordered(db, f"({FLAT.format(**clean)})", f"{LAKE}/csv/movimento_flat.csv")


def same_files() -> None:
    """The CSV from our gold's files, in the memory that ours has for it."""
    with duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(LAKE / "spill")}) as db:
        ordered(db, stored(LAKE / "gold/cartoes/movimento_flat"), f"{LAKE}/same_files.csv")


STEPS: dict[str, Callable[[], None]] = {step.__name__: step for step in (copy, parquet, join_csv, same_files)}


def main(names: list[str]) -> None:
    for name in names:
        began = time.monotonic()
        STEPS[name]()
        print(json.dumps({name: time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
