"""Delta tables of one layer: where they lie, which version is the good one, and `_runs`, the commit point of a run.

A run is complete when its row is in `_runs`; readers take the versions that the last row names.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions
from filelock import FileLock, Timeout

from conf.contract import Pii, Table
from conf.settings import Settings
from pipelines.arrow import arrow_type
from pipelines.errors import LockedFault, QualityFault, StorageFault

LAYERS = ("bronze", "silver", "gold")
RUNS = "_runs"
EMBEDDED = "embedded"
LOCK = ".lock"
LOG = "_delta_log"
QUARANTINE = "__quarantine"
# Superseded versions stay readable, and the log that names them, for as long as we keep history.
PROPERTIES = {
    "delta.logRetentionDuration": "interval 365 days",
    "delta.deletedFileRetentionDuration": "interval 365 days",
    "delta.enableDeletionVectors": "false",
}


@dataclass(frozen=True)
class TableRun:
    """What a run did to one table: the Delta version it left, and its rows. rows_in = rows_out + set_aside + copies."""

    name: str
    version: int
    rows_in: int
    rows_out: int
    set_aside: int = 0
    copies: int = 0
    seconds: float = 0.0

    @property
    def is_quarantine(self) -> bool:
        return self.name.endswith(QUARANTINE)


@dataclass(frozen=True)
class Run:
    """A complete run of one layer and domain. `source` (an address, or EMBEDDED) and `lake` come down
    from bronze, `snapshot` is the source's."""

    run: int
    lake: str
    domain: str
    upstream_run: int | None
    source: str
    snapshot: str
    started: datetime
    finished: datetime
    tables: tuple[TableRun, ...] = field(default=())
    csv_sha256: str | None = None

    def table(self, name: str) -> TableRun:
        """What the run did to a table; raises QualityFault where the table is younger than the run."""
        for table in self.tables:
            if table.name == name:
                return table
        raise QualityFault(f"run {self.run} of the layer before has no table {name}; run that layer again")


INSTANT = pa.timestamp("us", tz="UTC")
TABLE_RUN = pa.struct(
    {
        "name": pa.string(),
        "version": pa.int64(),
        "rows_in": pa.int64(),
        "rows_out": pa.int64(),
        "set_aside": pa.int64(),
        "copies": pa.int64(),
        "seconds": pa.float64(),
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
        "csv_sha256": pa.string(),
    }
)


@contextmanager
def storage(what: str) -> Iterator[None]:
    """Turns what the file system or delta-rs says into one StorageFault that names `what`."""
    try:
        yield
    except (OSError, DeltaError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageFault(f"{what}: {said.splitlines()[0]}") from error


def prepare(settings: Settings) -> None:
    """Creates the layers' folders, closed to others; those with plain card numbers are their owner's only.

    Raises StorageFault where a folder has files but was not made here.
    """
    for layer in LAYERS:
        path = settings.layer_path(layer)
        with storage(f"{layer} folder {path}"):
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()) and not (path / LOCK).exists():
                raise StorageFault(f"{layer} folder {path} holds other files; name an empty one")
            path.chmod(0o700 if layer == "bronze" or settings.card_numbers == "plain" else 0o750)


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Holds the lock of every layer, or raises LockedFault at once."""
    prepare(settings)
    with ExitStack() as held:
        for layer in LAYERS:
            path = settings.layer_path(layer)
            try:
                held.enter_context(FileLock(path / LOCK, timeout=0, mode=0o600))
            except Timeout as error:
                raise LockedFault(f"another run works on {path}; wait for it to end") from error
            except OSError as error:
                raise StorageFault(f"{layer} folder {path}: {error.strerror}") from error
        yield


def properties(table: Table) -> dict[str, str]:
    """Delta's settings of a table. Its log gets the extremes of keys, dates and amounts, never of personal data."""
    indexed = [column.name for column in table.columns if column.pii is Pii.NONE and column.type != "string"]
    return PROPERTIES | {"delta.dataSkippingStatsColumns": ",".join(f"`{name}`" for name in indexed)}


def set_properties(path: Path, table: Table) -> None:
    """Gives a table that is there already the properties it would be made with."""
    with storage(f"table {path}"):
        if (
            version(path) is not None
            and not properties(table).items() <= DeltaTable(path).metadata().configuration.items()
        ):
            DeltaTable(path).alter.set_table_properties(properties(table))


def table_path(layer_path: Path, table: Table, suffix: str = "") -> Path:
    return layer_path / table.domain / (table.name + suffix)


def csv_path(settings: Settings, table: Table) -> Path:
    return settings.export_path / f"{table.name}.csv"


def read_runs(layer_path: Path) -> list[Run]:
    """The complete runs of a layer, oldest first."""
    path = layer_path / RUNS
    if version(path) is None:
        return []
    # File by file: pyarrow's threads under delta-rs's dataset can abort the process at its end.
    with storage(f"table {path}"):
        files = file_paths(path, DeltaTable(path).version())
        rows = [row for file in files for row in pq.ParquetFile(file).read(use_threads=False).to_pylist()]
    runs = (Run(**{**row, "tables": tuple(TableRun(**table) for table in row["tables"])}) for row in rows)
    return sorted(runs, key=lambda run: run.run)


def last_run(layer_path: Path, domain: str) -> Run | None:
    """The last complete run of a domain."""
    return next((run for run in reversed(read_runs(layer_path)) if run.domain == domain), None)


def record(layer_path: Path, run: Run) -> None:
    """The commit point: from here on readers see what `run` names."""
    path = layer_path / RUNS
    make_folder(path)
    rows = pa.Table.from_pylist([asdict(run)], schema=RUN)
    with storage(f"table {path}"):
        write_deltalake(
            path,
            rows,
            mode="append",
            configuration=PROPERTIES,
            description="Complete runs. One row per run and domain.",
        )


def version(path: Path) -> int | None:
    """The head version of the table, None where nothing was committed yet. A folder that is not ours is refused."""
    with storage(f"table {path}"):
        if not path.exists() or not any(path.iterdir()):
            return None
        if not (path / LOG).is_dir():
            raise StorageFault(f"{path} holds files that are no Delta table; move them away")
        if not any(file.suffix == ".json" for file in (path / LOG).iterdir()):
            return None  # a run was interrupted before its first commit
        return DeltaTable(path, without_files=True).version()


def make_folder(path: Path) -> None:
    """Creates the folder of a table with its log, which marks it as ours before the first file is in it."""
    version(path)  # refuses a folder that is not ours
    with storage(f"table {path}"):
        (path / LOG).mkdir(parents=True, exist_ok=True)


def bring_back(layer_path: Path, run: Run | None) -> None:
    """Restores each table whose head is not what `run` recorded: a run that did not complete left it so.

    Raises StorageFault where a table that the run recorded is gone.
    """
    if run is None:
        return
    for table in run.tables:
        path = layer_path / run.domain / table.name
        if (head := version(path)) == table.version:
            continue
        if head is None:
            said = f"it is gone, but run {run.run} recorded its version {table.version}"
            raise StorageFault(f"table {path}: {said}; restore it from a backup, or begin anew with `make reset`")
        with storage(f"table {path}"):
            last = DeltaTable(path).history(1)[0]
            if (last["operation"], last["operationParameters"].get("version")) != ("RESTORE", str(table.version)):
                DeltaTable(path).restore(table.version)


def file_paths(path: Path, at: int) -> list[str]:
    """The data files of a version."""
    with storage(f"table {path}"):
        # Not file_uris(): it percent-encodes the table's folder.
        names = pa.table(DeltaTable(path, version=at).get_add_actions())["path"].to_pylist()
    return [str(path / name) for name in names]


def commit_files(path: Path, table: Table, schema: pa.Schema, files: list[tuple[str, int]]) -> int:
    """Makes the Parquet files (name in `path`, rows) the whole content of the table, in one commit. Its version."""
    with storage(f"table {path}"):
        actions = []
        for name, rows in files:
            stat = (path / name).stat()
            stats = json.dumps({"numRecords": rows})
            actions.append(AddAction(name, stat.st_size, {}, int(stat.st_mtime * 1000), True, stats))
        delta_schema = Schema.from_arrow(schema)
        create_table_with_add_actions(
            str(path), delta_schema, actions, "overwrite", [], table.name, table.comment, properties(table)
        )
        return DeltaTable(path, without_files=True).version()


def empty(path: Path, table: Table, more: Mapping[str, str]) -> int:
    """Leaves the table without rows, with the contract's columns and then `more` (name to Spark SQL type). Its version;
    a table that is so already gets no commit."""
    fields = [
        pa.field(column.name, arrow_type(column.type), metadata={"comment": column.comment}) for column in table.columns
    ]
    schema = pa.schema(fields + [pa.field(name, arrow_type(kind)) for name, kind in more.items()])
    make_folder(path)
    if (head := version(path)) is not None and not file_paths(path, head):
        with storage(f"table {path}"):
            if DeltaTable(path).schema() == Schema.from_arrow(schema):
                return head
    return commit_files(path, table, schema, [])


def count_rows(path: Path, at: int) -> int:
    """The rows of a version, from the statistics in its log."""
    with storage(f"table {path}"):
        return DeltaTable(path, version=at).count()
