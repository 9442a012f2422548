"""The tables of the run log as rows: what columns they have, how they are read and appended to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake

from pipelines.core.errors import StorageFault
from pipelines.lake.delta import PROPERTIES, actions, file_paths, make_folder, version
from pipelines.lake.folders import storage
from pipelines.lake.integrity import checked

INSTANT = pa.timestamp("us", tz="UTC")


COLUMN_RUN = pa.struct([(name, pa.string()) for name in ("name", "type", "checksum", "total")])


TABLE_RUN = pa.struct(
    {
        "name": pa.string(),
        "version": pa.int64(),
        "rows_in": pa.int64(),
        "rows_out": pa.int64(),
        "set_aside": pa.int64(),
        "copies": pa.int64(),
        "seconds": pa.float64(),
        "guaranteed": pa.list_(pa.string()),
        "columns": pa.list_(COLUMN_RUN),
        "files": pa.string(),
        "full_at": INSTANT,
        "how": pa.string(),
        "base": pa.int64(),
        "batches": pa.int64(),
        "basis": pa.string(),
        "mode": pa.string(),
        "csv_sha256": pa.string(),
    }.items()
)


RUN = pa.schema(
    {
        "run": pa.int64(),
        "lake": pa.string(),
        "domain": pa.string(),
        "upstream_run": pa.int64(),
        "source": pa.string(),
        "snapshot": pa.string(),
        "started": INSTANT,
        "finished": INSTANT,
        "tables": pa.list_(TABLE_RUN),
        "hashing": pa.string(),
        "warnings": pa.list_(pa.string()),
        "card_numbers": pa.string(),
        "kind": pa.string(),
        "content_of": pa.int64(),
        "position": pa.string(),
        "software": pa.string(),
    }
)


RULE_RUN = pa.schema(
    {
        "run": pa.int64(),
        "domain": pa.string(),
        "table": pa.string(),
        "rule": pa.string(),
        "severity": pa.string(),
        "tested": pa.int64(),
        "failed": pa.int64(),
        "keys": pa.list_(pa.string()),
    }
)


INGESTED_FILE = pa.schema(
    {
        "run": pa.int64(),
        "domain": pa.string(),
        "table": pa.string(),
        "name": pa.string(),
        "sha256": pa.string(),
        "bytes": pa.int64(),
        "modified": INSTANT,
        "first": pa.int64(),
        "lines": pa.int64(),
        "bad": pa.int64(),
        "why": pa.string(),
        "extras": pa.list_(pa.string()),
    }
)


def read_rows(path: Path, where: Mapping[str, int | str], columns: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The rows of a small table that have given values, as dicts without nulls; of all columns, or of those named."""
    if version(path) is None:
        return []
    try:
        rows = _read(path, columns, where)
    except StorageFault:
        rows = _read(path, columns, where)  # its files may just have been made one
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _read(path: Path, columns: tuple[str, ...], where: Mapping[str, int | str]) -> list[dict[str, Any]]:
    checked(path, None, path.name)
    rows: list[dict[str, Any]] = []
    # File by file: pyarrow's threads under delta-rs's dataset can abort the process at its end.
    for file in file_paths(path, version(path) or 0):
        with storage(f"file {file}"):
            table = pq.ParquetFile(file).read(columns=list(columns) or None, use_threads=False)
        # Not by Arrow's own filter, which does not know all types that delta-rs writes.
        known = {name: table[name].to_pylist() for name in where}
        kept = [at for at in range(len(table)) if all(known[name][at] == value for name, value in where.items())]
        rows += table.to_pylist() if len(kept) == len(table) else [table.slice(at, 1).to_pylist()[0] for at in kept]
    return rows


def append_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema, description: str) -> None:
    """Adds rows to a table of the run log, which gets the columns that it lacks; of those that only it has, null."""
    make_folder(path)
    with storage(f"table {path}"):
        if version(path) is None:
            first = pa.Table.from_pylist(rows, schema=schema)
            write_deltalake(path, first, name=path.name, description=description, configuration=PROPERTIES)
            return
        table = DeltaTable(path)
        stored = pa.schema(table.schema().to_arrow())
        unified = pa.unify_schemas([stored, schema], promote_options="permissive")
        if unified != stored:
            # Not by write_deltalake's schema_mode="merge", which takes the table's name away.
            table.alter.add_columns(Schema.from_arrow(unified).fields)
        write_deltalake(table, pa.Table.from_pylist(rows, schema=unified), mode="append")


def compact(path: Path, many: int) -> None:
    """One file instead of `many` or more. Those it replaces stay for a while: somebody may just read them."""
    head = version(path)
    if head is not None and len(actions(path, head)) >= many:
        with storage(f"table {path}"):
            DeltaTable(path).optimize.compact()
        checked(path, None, path.name)
