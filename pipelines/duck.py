"""DuckDB, the second engine: it writes the CSV and says what a table's files hold, apart from who wrote them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb

from conf.contract import is_summed
from pipelines.errors import StorageFault
from pipelines.records import ColumnRun
from pipelines.source import quoted

MEMORY = "1GB"
# DuckDB may change its hash from version to version: checksums compare only within one.
HASHING = f"duckdb {duckdb.__version__}"


@contextmanager
def engine(what: str, scratch: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in bounded memory that spills to `scratch`. What it says becomes a StorageFault that names `what`."""
    more = {"temp_directory": str(scratch)} if scratch else {}
    connection = duckdb.connect(config={"memory_limit": MEMORY, **more})
    try:
        yield connection
    except duckdb.Error as error:
        raise StorageFault(f"{what}: {type(error).__name__}; check the files and the disk's free space") from error
    finally:
        connection.close()


def evidence(
    what: str, files: list[str], columns: Mapping[str, str], keys: tuple[str, ...]
) -> tuple[int, tuple[ColumnRun, ...]]:
    """Rows of the Parquet files and, of each column (name to Spark SQL type), an order-free checksum and a sum.

    The checksum adds a hash of (key, value) over the rows: a value that changed, or changed places, changes it.
    """
    items, named = ["count(*)"], ", ".join(map(quoted, keys))
    for name, kind in columns.items():
        items.append(f"coalesce(sum(hash({named}, {quoted(name)})::hugeint), 0)::varchar")
        items.append(f"coalesce(sum({quoted(name)}), 0)::varchar" if is_summed(kind) else "NULL")
    if not files:
        return 0, tuple(ColumnRun(name, kind, "0", "0" if is_summed(kind) else None) for name, kind in columns.items())
    with engine(what) as connection:
        found = connection.execute(f"SELECT {', '.join(items)} FROM read_parquet($files)", {"files": files}).fetchone()
    assert found is not None
    return found[0], tuple(
        ColumnRun(name, kind, found[1 + 2 * index], found[2 + 2 * index])
        for index, (name, kind) in enumerate(columns.items())
    )
