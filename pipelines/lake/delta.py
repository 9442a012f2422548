"""Delta tables as versions made of Parquet files: heads, commits, statistics, and their check before use."""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from conf.contract import Pii, Table
from pipelines.core.errors import StorageFault
from pipelines.core.points import Point, crash_point
from pipelines.lake.folders import read_once, scratch, storage
from pipelines.lake.schema import description, promised

LOG = "_delta_log"

ENGINE = "lakehouse"  # who wrote a commit

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


def actions(path: Path, at: int | None) -> list[tuple[Path, int]]:
    """The data files of a version and their bytes, as its log has them; none before the first version."""
    return [] if at is None else [(path / name, size) for name, size in version_content(path, at).files]


class VersionContent(NamedTuple):
    """What the log says of a version: the name of the table, and its data files with their bytes."""

    name: str
    files: tuple[tuple[str, int], ...]


def version_content(path: Path, at: int) -> VersionContent:
    """What the log of the table `path` says of a version."""
    commit = path / _commit(at)
    with storage(f"table {path}"):
        try:
            return _read_version_once(commit)
        except FileNotFoundError:  # a checkpoint stands for it
            return _read_version(commit)


def _read_version(commit: Path) -> VersionContent:
    table = DeltaTable(commit.parent.parent, version=int(commit.stem))
    # Not file_uris(): it percent-encodes the table's folder.
    adds = pa.table(table.get_add_actions()).select(["path", "size_bytes"]).to_pydict()
    return VersionContent(table.metadata().name or "", tuple(zip(*adds.values(), strict=True)))


_read_version_once = read_once(_read_version)


def file_paths(path: Path, at: int) -> list[str]:
    """The data files of a version."""
    return [str(file) for file, _ in actions(path, at)]


def part_name(run: int, which: str = "") -> str:
    """The name of a data file that a run makes, a new one, or the pattern of all."""
    return f"part-{run:05d}-{which or uuid.uuid4().hex}.parquet"


def sweep(path: Path, run: int) -> None:
    """Removes the files of a run that a table's head does not name: they were written in vain."""
    with storage(f"table {path}"):
        if files := set(path.glob(part_name(run, "*"))):
            for file in files - {file for file, _ in actions(path, version(path))}:
                file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Change:
    """What a run makes of a table: the files `added` beside those `kept`, None when it keeps nothing, and the columns'
    `types` (name to Spark SQL type). It `compacts` when the rows stay the same. `counts`: the rows that it inserts,
    updates and deletes, if that is known."""

    run: int
    types: Mapping[str, str]
    added: Sequence[str]
    kept: Collection[str] | None = None
    compacts: bool = False
    counts: tuple[int, int, int] | None = None


def commit(path: Path, table: Table, change: Change) -> int:
    """Changes a table in one commit; files are named from `path`. Its version. A commit that would change nothing, not
    even the columns' comments, is not made. Raises StorageFault when another table is there."""
    with storage(f"table {path}"):
        make_folder(path)
        head, name = version(path), full_name(table.layer, table.domain, path.name)
        stored = None if head is None else DeltaTable(path, without_files=True)
        if stored and (there := stored.metadata().name) != name:
            raise StorageFault(f"table {path}: another table is there, {there or 'one without a name'}; move it away")
        stays = {*change.added, *(change.kept or ())}
        removed = {file.name: size for file, size in actions(path, head) if file.name not in stays}
        definition = _definition(path, table, change.types, stored)
        if head is not None and not (change.added or removed or definition):
            return head
        return _write_commit(path, table, change, removed, definition)


def _operation(table: Table, change: Change, removed: Mapping[str, int]) -> tuple[str, dict[str, Any]]:
    """A change in the words of Spark's DESCRIBE HISTORY: the operation and its parameters."""
    if change.kept is None:
        return "WRITE", {"mode": "Overwrite", "partitionBy": "[]"}
    if change.compacts:
        return "OPTIMIZE", {"predicate": "[]", "auto": False}
    if removed:
        return "MERGE", {"predicate": json.dumps([" AND ".join(f"t.`{key}` = s.`{key}`" for key in table.keys)])}
    return ("WRITE", {"mode": "Append", "partitionBy": "[]"}) if change.added else ("UPDATE SCHEMA", {})


# The metrics of an operation as Spark names them: files and bytes that were added, files and bytes that were removed.
METRICS = {
    "WRITE": ("numFiles", "numOutputBytes", "numRemovedFiles", "numRemovedBytes"),
    "MERGE": ("numTargetFilesAdded", "numTargetBytesAdded", "numTargetFilesRemoved", "numTargetBytesRemoved"),
    "OPTIMIZE": ("numAddedFiles", "numAddedBytes", "numRemovedFiles", "numRemovedBytes"),
}

MERGED_ROWS = ("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted")

# Features of a table, as its protocol names them, and what in its schema needs them.
NOT_NULL, WITHOUT_ZONE = "invariants", "timestampNtz"
FEATURES = {'"nullable":false': NOT_NULL, '"timestamp_ntz"': WITHOUT_ZONE}


def _definition(path: Path, table: Table, types: Mapping[str, str], stored: DeltaTable | None) -> list[dict[str, Any]]:
    """The lines of a commit that say what the table is, if it is not that already: its protocol, its metadata.

    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#change-metadata
    """
    wanted = Schema.from_arrow(promised(types, table, path.name))
    known, protocol = (stored.metadata(), stored.protocol()) if stored else (None, None)
    skipped_by = ",".join(f"`{name}`" for name in indexed(table))
    configuration = PROPERTIES | {"delta.dataSkippingStatsColumns": skipped_by}
    configuration = (dict(known.configuration) if known else {}) | configuration
    text, comment = wanted.to_json(), description(table, path.name)
    lines: list[dict[str, Any]] = []
    readers = set(protocol.reader_features or () if protocol else ())
    writers = set(protocol.writer_features or () if protocol else ())
    needed = {feature for sign, feature in FEATURES.items() if sign in text}
    if not (writers or WITHOUT_ZONE in needed):
        if protocol is None:
            lines.append({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})
    elif not needed <= writers:
        features = {"readerFeatures": sorted(readers | {WITHOUT_ZONE} & needed)}
        features["writerFeatures"] = sorted(writers | needed | {"appendOnly", NOT_NULL})
        lines.append({"protocol": {"minReaderVersion": PROTOCOL[0], "minWriterVersion": PROTOCOL[1]} | features})
    is_known = known and (known.description, dict(known.configuration)) == (comment, configuration)
    if not (is_known and stored and json.loads(stored.schema().to_json()) == json.loads(text)):
        metadata: dict[str, Any] = {
            "id": known.id if known else str(uuid.uuid4()),
            "name": full_name(table.layer, table.domain, path.name),
            "description": comment,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": text,
            "partitionColumns": [],
            "configuration": configuration,
            "createdTime": known.created_time if known else time.time_ns() // 10**6,
        }
        lines.append({"metaData": metadata})
    return lines


def _write_commit(
    path: Path, table: Table, change: Change, removed: Mapping[str, int], definition: list[dict[str, Any]]
) -> int:
    """Writes a commit into the table's log, `removed` with the bytes of the files. Its version.

    ADR 10 says why it is not delta-rs that does it.
    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-file-and-remove-file
    """
    crash_point(Point.TABLE_PROVED)
    head, now = version(path), time.time_ns() // 10**6
    target, is_change = 0 if head is None else head + 1, not change.compacts
    operation, parameters = _operation(table, change, removed)
    adds = [_add_action(path / name, table) | {"dataChange": is_change} for name in change.added]
    gone = {"deletionTimestamp": now, "extendedFileMetadata": True, "partitionValues": {}, "dataChange": is_change}
    lines = [{"remove": {"path": name, "size": size} | gone} for name, size in removed.items()]
    lines += [{"add": add} for add in adds]
    counts = (len(adds), sum(add["size"] for add in adds), len(removed), sum(removed.values()))
    metrics = dict(zip(METRICS.get(operation, ()), map(str, counts), strict=False))
    if operation == "MERGE":
        metrics |= dict(zip(MERGED_ROWS, map(str, change.counts or ()), strict=False))
    rows = sum(json.loads(add["stats"])["numRecords"] for add in adds)
    info = {
        "timestamp": now,
        "operation": operation,
        "operationParameters": parameters,
        "isolationLevel": "Serializable",
        "isBlindAppend": is_change and not removed,
        "operationMetrics": metrics | {"numOutputRows": str(rows)},
        "userMetadata": f"{table.layer}/{change.run}",
        "engineInfo": ENGINE,
    }
    if head is not None:
        info["readVersion"] = head
    with scratch(path, "run") as folder:
        half = folder / "commit"
        with half.open("w", encoding="utf-8") as file:
            file.write("".join(f"{json.dumps(line)}\n" for line in [{"commitInfo": info}, *definition, *lines]))
            file.flush()
            os.fsync(file.fileno())
        crash_point(Point.COMMIT_WRITTEN)
        half.rename(path / _commit(target))  # in full or not at all; the lock keeps others out
    if target and target % CHECKPOINT_EVERY == 0:
        with suppress(OSError, DeltaError):  # without a checkpoint the log is only longer to read
            DeltaTable(path).create_checkpoint()
    return target


def written_by_hand(path: Path) -> str:
    """The last commit of a table, as `WRITE by Apache-Spark/4.2.0`; empty when a run made it."""
    with storage(f"table {path}"):
        last = DeltaTable(path).history(1)[0]
    engine = last.get("engineInfo", "another program")
    by_run = "userMetadata" in last or engine == ENGINE or last["operation"] == "RESTORE"
    return "" if by_run else f"{last['operation']} by {engine.split()[0]}"


def _add_action(file: Path, table: Table) -> dict[str, Any]:
    """What a commit says of a data file that it adds."""
    stat, stats = file.stat(), json.dumps(statistics(file, indexed(table)))
    known = {"path": file.name, "size": stat.st_size, "partitionValues": {}, "stats": stats}
    return known | {"modificationTime": stat.st_mtime_ns // 10**6}


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
            _check_footer(file)
    return fingerprint(files)


@read_once
def _check_footer(file: Path) -> None:
    pq.read_metadata(file)


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
        with storage(f"file {path / _commit(number)}"):
            _check_commit(path / _commit(number))
    return numbers


@read_once
def _check_commit(commit: Path) -> None:
    what = f"table {commit.parent.parent}: {LOG}/{commit.name}"
    text = commit.read_bytes()
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
