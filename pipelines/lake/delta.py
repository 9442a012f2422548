"""Delta tables as versions made of Parquet files: heads, commits, statistics, and their check before use."""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions

from conf.contract import Pii, Table
from pipelines.core.errors import StorageFault
from pipelines.core.points import Point, crash_point
from pipelines.lake.folders import scratch, storage

LOG = "_delta_log"


COMMIT, CHECKPOINT = re.compile(r"(\d{20})\.json"), re.compile(r"(\d{20})\.checkpoint\..*parquet")


PROTOCOL = (3, 7)  # the newest reader and writer versions: later features have names instead of numbers


CHECKPOINT_EVERY = 10  # commits; a reader goes through all since the last checkpoint


# `make maintain` decides by runs which superseded versions stay, not Delta by the clock.
PROPERTIES = {
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 3650 days",
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": str(CHECKPOINT_EVERY),
    "delta.enableDeletionVectors": "false",
}


def indexed(table: Table) -> list[str]:
    """The columns whose extremes may stand in the table's log: keys, dates and amounts, never personal data."""
    return [column.name for column in table.columns if column.pii is Pii.NONE and column.type != "string"]


def full_name(layer: str, domain: str, name: str) -> str:
    """What a table is called in its own log, so that it is not mistaken for another."""
    return f"{layer}.{domain}.{name}"


def version(path: Path) -> int | None:
    """The head version of the table, None when nothing was committed yet. Raises StorageFault for a folder that is not
    ours."""
    with storage(f"table {path}"):
        if not path.exists() or not any(path.iterdir()):
            return None
        if not (path / LOG).is_dir():
            raise StorageFault(f"{path} holds files that are no Delta table; move them away")
        return max(commits(path), default=None)  # None: a run was interrupted before its first commit


def commits(path: Path) -> list[int]:
    """The versions whose commits lie in the table's log, in order."""
    return sorted(int(match[1]) for file in (path / LOG).iterdir() if (match := COMMIT.fullmatch(file.name)))


def make_folder(path: Path) -> None:
    """Creates the folder of a table with an empty log, which marks it as ours before the first file is in it."""
    version(path)  # refuses a folder that is not ours
    with storage(f"table {path}"):
        (path / LOG).mkdir(parents=True, exist_ok=True)


def actions(path: Path, at: int) -> list[tuple[Path, int]]:
    """The data files of a version and their bytes, as its log has them."""
    return [(path / name, size) for name, size in version_content(path, at).files]


class VersionContent(NamedTuple):
    """What the log says of a version: the name of the table, and its data files with their bytes."""

    name: str
    files: tuple[tuple[str, int], ...]


def version_content(path: Path, at: int) -> VersionContent:
    """What the log of the table `path` says of a version."""
    with storage(f"table {path}"):
        try:
            commit = (path / _commit(at)).stat()
        except FileNotFoundError:  # a checkpoint stands for it
            return _version_content.__wrapped__(path, at, (0, 0, 0))
        return _version_content(path, at, (commit.st_ino, commit.st_size, commit.st_mtime_ns))


@lru_cache(maxsize=256)
def _version_content(path: Path, at: int, _: tuple[int, int, int]) -> VersionContent:
    # Cached while the commit is the same file: a version never changes.
    table = DeltaTable(path, version=at)
    # Not file_uris(): it percent-encodes the table's folder.
    adds = pa.table(table.get_add_actions()).select(["path", "size_bytes"]).to_pydict()
    return VersionContent(table.metadata().name or "", tuple(zip(*adds.values(), strict=True)))


def file_paths(path: Path, at: int) -> list[str]:
    """The data files of a version."""
    return [str(file) for file, _ in actions(path, at)]


def part_name(run: int, which: str = "") -> str:
    """The name of a data file that a run makes, a new one, or the pattern of all."""
    return f"part-{run:05d}-{which or uuid.uuid4().hex}.parquet"


def commit_files(path: Path, table: Table, schema: pa.Schema, files: list[str]) -> int:
    """Makes the Parquet files, named from `path`, the content of the table, in one commit. Its version.

    A table that is empty already gets no commit. Raises StorageFault when another table is there.
    """
    with storage(f"table {path}"):
        delta_schema, name = Schema.from_arrow(schema), full_name(table.layer, table.domain, path.name)
        head = version(path)
        if head is not None and (there := DeltaTable(path, without_files=True).metadata().name) != name:
            raise StorageFault(f"table {path}: another table is there, {there or 'one without a name'}; move it away")
        if not files and head is not None and not file_paths(path, head) and DeltaTable(path).schema() == delta_schema:
            return head
        adds = [_add_action(path / file, table) for file in files]
        settings = PROPERTIES | {"delta.dataSkippingStatsColumns": ",".join(f"`{name}`" for name in indexed(table))}
        create_table_with_add_actions(
            str(path), delta_schema, adds, "overwrite", [], name=name, description=table.comment, configuration=settings
        )
        return DeltaTable(path, without_files=True).version()


def commit_changes(path: Path, table: Table, added: Sequence[str], removed: Sequence[str]) -> int:
    """Adds files to a table and removes others, in one commit. Its version.

    ADR 10 says why it is not delta-rs that does it.
    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-file-and-remove-file
    """
    with storage(f"table {path}"):
        target, now = (version(path) or 0) + 1, time.time_ns() // 10**6
        info = {"timestamp": now, "operation": "WRITE", "operationParameters": {}, "engineInfo": "lakehouse"}
        lines: list[dict[str, Any]] = [{"commitInfo": info}]
        gone = {"deletionTimestamp": now, "extendedFileMetadata": True, "partitionValues": {}, "dataChange": True}
        lines += [{"remove": {"path": name, "size": (path / name).stat().st_size} | gone} for name in removed]
        added_files = (astuple(_add_action(path / name, table)) for name in added)
        lines += [{"add": dict(zip(ADD_FIELDS, add, strict=True))} for add in added_files]
        with scratch(path, "run") as folder:
            half = folder / "commit"
            with half.open("w", encoding="utf-8") as file:
                file.write("".join(f"{json.dumps(line)}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
            crash_point(Point.COMMIT_WRITTEN)
            half.rename(path / _commit(target))  # in full or not at all; the lock keeps others out
        if target % CHECKPOINT_EVERY == 0:
            with suppress(OSError, DeltaError):  # without a checkpoint the log is only longer to read
                DeltaTable(path).create_checkpoint()
        return target


def _add_action(file: Path, table: Table) -> AddAction:
    """What a commit says of a data file that it adds: path, size, partition, milliseconds, change, statistics."""
    stat, stats = file.stat(), json.dumps(statistics(file, indexed(table)))
    return AddAction(file.name, stat.st_size, {}, stat.st_mtime_ns // 10**6, True, stats)


# The fields of AddAction as the log names them.
ADD_FIELDS = ("path", "size", "partitionValues", "modificationTime", "dataChange", "stats")


def statistics(file: Path, columns: list[str]) -> dict[str, Any]:
    """What Delta's log says of a file so that readers can skip it: its rows and, for the columns, extremes and nulls.

    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics
    """
    footer = pq.read_metadata(file)
    known: dict[str, dict[str, Any]] = {"minValues": {}, "maxValues": {}, "nullCount": {}}
    for index in range(footer.num_columns):
        name = footer.schema.column(index).path
        chunks = [footer.row_group(group).column(index).statistics for group in range(footer.num_row_groups)]
        if name not in columns or not all(chunk and chunk.has_null_count for chunk in chunks):
            continue
        known["nullCount"][name] = sum(chunk.null_count for chunk in chunks)
        lows = [chunk.min for chunk in chunks if chunk.has_min_max]
        highs = [chunk.max for chunk in chunks if chunk.has_min_max]
        if lows and (low := _as_json(min(lows))) is not None and (high := _as_json(max(highs))) is not None:
            known["minValues"][name], known["maxValues"][name] = low, high
    return {"numRecords": footer.num_rows, **known}


def _as_json(value: object) -> int | float | str | None:
    """A value as the log writes it; None when that would not be exact."""
    if isinstance(value, Decimal):
        return float(value) if len(value.as_tuple().digits) <= 15 else None
    if isinstance(value, datetime):
        return value.isoformat() if value.tzinfo is None else None
    if isinstance(value, date):
        return value.isoformat()
    return value if type(value) is int else None


def checked(path: Path, at: int | None, name: str, run: str = "") -> str:
    """The fingerprint of a table's files in a version, which `run` left, or in its head. No row is read.

    Raises StorageFault naming the table and the file when the log or a file is damaged, or the table is not `name`.
    delta-rs skips an empty commit and reports a missing one with a riddle, so the log is checked here first.
    """
    numbers = _checked_log(path)
    if at is not None and at not in numbers:
        raise StorageFault(f"table {path}: {_commit(at)} is missing, which {run} wrote")
    content = version_content(path, numbers[-1] if at is None else at)
    if content.name != name:
        actual = content.name or "one without a name"
        raise StorageFault(f"table {path}: {LOG} is of another table, {actual}, not {name}")
    files = [(path / file, size) for file, size in content.files]
    for file, size in files:
        if not file.exists():
            raise StorageFault(f"file {file} is gone")
        with storage(f"file {file}"):
            actual_size = file.stat().st_size
            if actual_size != size:
                raise StorageFault(f"file {file} has {actual_size:,} bytes, the table's log says {size:,}")
            pq.read_metadata(file)
    return fingerprint(files)


def fingerprint(files: list[tuple[Path, int]]) -> str:
    """The fingerprint of a version's files, by their names and sizes."""
    return hashlib.sha256("\n".join(sorted(f"{file.name} {size}" for file, size in files)).encode()).hexdigest()


def _checked_log(path: Path) -> list[int]:
    """The versions whose commits are there. Raises StorageFault when one is missing, empty or cut off."""
    if version(path) is None:
        raise StorageFault(f"table {path} is gone")
    numbers = commits(path)
    checkpoints = [int(match[1]) for file in (path / LOG).iterdir() if (match := CHECKPOINT.fullmatch(file.name))]
    first = 0 if not any(checkpoint >= numbers[0] for checkpoint in checkpoints) else numbers[0]
    if missing := sorted(set(range(first, numbers[-1] + 1)) - set(numbers)):
        raise StorageFault(f"table {path}: {_commit(missing[0])} is missing")
    for number in (number for number in numbers if number > max(checkpoints, default=-1)):
        _check_commit(path, number)
    return numbers


def _check_commit(path: Path, number: int) -> None:
    what = f"table {path}: {_commit(number)}"
    with storage(f"file {path / _commit(number)}"):
        text = (path / _commit(number)).read_bytes()
    try:
        lines = [json.loads(line) for line in text.splitlines()]
        protocols = [line["protocol"] for line in lines if "protocol" in line]
    except (ValueError, TypeError) as error:
        raise StorageFault(f"{what} is cut off or no JSON") from error
    if not lines:
        raise StorageFault(f"{what} is empty")
    for protocol in protocols:
        reader, writer = protocol.get("minReaderVersion", 0), protocol.get("minWriterVersion", 0)
        if reader > PROTOCOL[0] or writer > PROTOCOL[1]:
            newer = f"a newer protocol of Delta (reader {reader}, writer {writer}) than this software knows"
            raise StorageFault(f"{what} is of {newer}")


def _commit(number: int) -> str:
    return f"{LOG}/{number:020d}.json"
