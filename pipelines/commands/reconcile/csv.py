"""Compares a CSV with the gold rows that it should have, record by record."""

from pathlib import Path

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.export.csv import draft, exported, records_of
from pipelines.lake import delta, folders
from pipelines.lake.checksums import Difference
from pipelines.lake.engine import Engine, count, engine
from pipelines.lake.runs import Run


def against_gold(settings: Settings, table: Table, run: Run) -> list[str]:
    """How the CSV differs from the rows of gold's run; nothing if it has the run's bytes."""
    path = folders.csv_path(settings, table)
    if not path.exists():
        return ["is gone"]
    if folders.sha256(path) == run.table(table.name).csv_sha256:
        return []
    gold = folders.table_path(settings.gold_path, table)
    files = delta.file_paths(gold, run.table(table.name).version)
    with draft(settings, table, files) as fresh, folders.scratch(settings.gold_path, "reconcile") as spill:
        if fresh.sha256 == folders.sha256(path):
            return []
        return _differences(table, fresh.temporary, path, files, spill) or ["its bytes differ, its cells do not"]


def _differences(table: Table, fresh: Path, file: Path, gold_files: list[str], scratch: Path) -> list[str]:
    """The records in which a CSV differs from a fresh one of the same gold files; keys are gold's.

    The records of both are numbered: `e` is the fresh CSV, `a` the given CSV, `k` has gold's key of each number.
    """
    keys, names = ", ".join(map(identifier, table.keys)), ", ".join(map(identifier, exported(table)))
    with engine(f"export {file}", scratch) as db:
        for side, path in (("e", fresh), ("a", file)):
            numbered = f"SELECT *, row_number() OVER () AS _n, hash({names}) AS _hash FROM {records_of(table, path)}"
            db.execute(f"CREATE TEMP TABLE {side} AS {numbered}")
        db.execute(
            f"CREATE TEMP TABLE k AS SELECT concat_ws(', ', {keys}) AS _key, row_number() OVER (ORDER BY {keys}) AS _n "
            f"FROM read_parquet([{', '.join(map(duckdb_literal, gold_files))}])"
        )
        if count(db, "e") == count(db, "a"):
            return _changed(db, table)
        return _missing_and_extra(db)


def _changed(db: Engine, table: Table) -> list[str]:
    """The records that differ, number by number, and the columns in which they do."""
    columns = exported(table)
    differs = (f"count(*) FILTER (WHERE e.{name} IS DISTINCT FROM a.{name})" for name in map(identifier, columns))
    row = db.execute(
        f"SELECT count(*), arg_min(_key, _n), arg_max(_key, _n), {', '.join(differs)} "
        "FROM e JOIN a USING (_n) JOIN k USING (_n) WHERE e._hash <> a._hash"
    ).fetchone()
    assert row is not None
    records, least, most, *cells = row
    wrong = [name for name, number in zip(columns, cells, strict=True) if number]
    return [str(Difference("changed", records, least, most, tuple(wrong)))] if records else []


def _missing_and_extra(db: Engine) -> list[str]:
    """The records that come more often on one side, counted with their copies."""
    copies = "SELECT *, row_number() OVER (PARTITION BY _hash ORDER BY _n) AS _copy FROM"
    missing = db.execute(
        f"SELECT count(*), arg_min(_key, _n), arg_max(_key, _n) FROM ({copies} e) e JOIN k USING (_n) "
        f"ANTI JOIN ({copies} a) a USING (_hash, _copy)"
    ).fetchone()
    extra = db.execute(
        f"SELECT count(*), min(_n), max(_n) FROM ({copies} a) a ANTI JOIN ({copies} e) e USING (_hash, _copy)"
    ).fetchone()
    assert missing is not None and extra is not None
    problems = [str(Difference("missing", *missing))] if missing[0] else []
    return problems + ([f"{extra[0]:,} too many, record {extra[1]} to {extra[2]}"] if extra[0] else [])
