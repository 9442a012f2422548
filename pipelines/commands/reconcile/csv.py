"""Compares a CSV with the gold rows that it should have, record by record."""

from pathlib import Path

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.sql import identifier
from pipelines.export.csv import draft, exported, records_of
from pipelines.lake import delta, folders
from pipelines.lake.checksums import Difference
from pipelines.lake.engine import engine, text
from pipelines.lake.runs import Run


def against_gold(settings: Settings, table: Table, run: Run) -> list[str]:
    """How the CSV differs from the rows of gold's run; nothing where it has the run's bytes."""
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
    """In which records a CSV differs from a fresh one of the same gold files; keys are gold's."""
    keys, names = ", ".join(map(identifier, table.keys)), ", ".join(map(identifier, exported(table)))
    key = f"concat_ws(', ', {keys})"
    changed = ", ".join(
        f"count(*) FILTER (WHERE e.{name} IS DISTINCT FROM a.{name})" for name in map(identifier, exported(table))
    )
    with engine(f"export {file}", scratch) as connection:
        for side, path in (("e", fresh), ("a", file)):
            numbered = f"SELECT *, row_number() OVER () AS _n, hash({names}) AS _hash FROM {records_of(table, path)}"
            connection.execute(f"CREATE TEMP TABLE {side} AS {numbered}")
        connection.execute(
            f"CREATE TEMP TABLE k AS SELECT {key} AS _key, row_number() OVER (ORDER BY {keys}) AS _n "
            f"FROM read_parquet([{', '.join(map(text, gold_files))}])"
        )
        rows = connection.execute("SELECT (SELECT count(*) FROM e), (SELECT count(*) FROM a)").fetchone()
        assert rows is not None
        if rows[0] == rows[1]:
            pairs = "e JOIN a USING (_n) JOIN k USING (_n) WHERE e._hash <> a._hash"
            found = connection.execute(
                f"SELECT count(*), arg_min(_key, _n), arg_max(_key, _n), {changed} FROM {pairs}"
            ).fetchone()
            assert found is not None
            wrong = [name for name, count in zip(exported(table), found[3:], strict=True) if count]
            return [str(Difference("changed", found[0], found[1], found[2], tuple(wrong)))] if found[0] else []
        # Records that come more often on one side, counted with their copies.
        once = "SELECT *, row_number() OVER (PARTITION BY _hash ORDER BY _n) AS _copy FROM"
        missing = connection.execute(
            f"SELECT count(*), arg_min(_key, _n), arg_max(_key, _n) FROM ({once} e) e JOIN k USING (_n) "
            f"ANTI JOIN ({once} a) a USING (_hash, _copy)"
        ).fetchone()
        extra = connection.execute(
            f"SELECT count(*), min(_n), max(_n) FROM ({once} a) a ANTI JOIN ({once} e) e USING (_hash, _copy)"
        ).fetchone()
        assert missing is not None and extra is not None
    said = [str(Difference("missing", *missing))] if missing[0] else []
    return said + ([f"{extra[0]:,} too many, record {extra[1]} to {extra[2]}"] if extra[0] else [])
