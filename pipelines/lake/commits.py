"""What a run does to a Delta table, as the lines of a commit: what the table is, which files come and go, and why."""

import json
import re
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import Schema
from deltalake.table import ProtocolVersions

from conf.contract import Table
from pipelines.core.errors import StorageFault
from pipelines.lake import delta
from pipelines.lake.folders import storage
from pipelines.lake.schema import description, promised

ENGINE = "lakehouse"  # who wrote a commit


@dataclass(frozen=True)
class Change:
    """What a run makes of a table: the files `added` beside those `kept`, None when it keeps nothing, and the columns'
    `types` (name to Spark SQL type). It `compacts` when the rows stay the same. `counts`: the rows that it inserts,
    updates and deletes, if that is known; `feed`: the change data file that has these rows."""

    run: int
    types: Mapping[str, str]
    added: Sequence[str]
    kept: Collection[str] | None = None
    compacts: bool = False
    counts: tuple[int, int, int] | None = None
    feed: str = ""


@dataclass(frozen=True)
class Definition:
    """What the log of a table says that it is. `indexed`: the columns whose extremes may stand in it, of which those of
    EXACT types do."""

    name: str | None
    comment: str | None
    schema: Schema
    indexed: tuple[str, ...]
    properties: Mapping[str, str | None]


@dataclass(frozen=True)
class Cause:
    """Why a commit is made, in the words of Spark's DESCRIBE HISTORY; `run`, as gold/12, made it. `rows`: those that
    it inserts, updates and deletes, if that is known; `feed`: the change data file that has them."""

    run: str
    operation: str
    parameters: Mapping[str, Any]
    rows: tuple[int, int, int] | None = None
    feed: str = ""


def commit(path: Path, table: Table, change: Change) -> int:
    """Changes a table in one commit; files are named from `path`. Its version. A commit that would change nothing, not
    even the columns' comments, is not made. Raises StorageFault when another table is there."""
    schema = Schema.from_arrow(promised(change.types, table, path.name))
    name = delta.full_name(table.layer, table.domain, path.name)
    indexed = tuple(delta.indexed(table))
    properties = delta.PROPERTIES | {CHANGE_FEED: "true"}
    definition = Definition(name, description(table, path.name), schema, indexed, properties)
    stays = {*change.added, *(change.kept or ())}
    with storage(f"table {path}"):
        delta.make_folder(path)
        head = delta.version(path)
        if head is not None:
            _require_same(path, head, definition)
        removed = {name: size for name, size in delta.files_of(path, head).items() if name not in stays}
        return write(path, definition, _cause(table, change, bool(removed)), change.added, removed)


def restore(path: Path, target: int, run: int) -> int:
    """Makes an earlier version of a table its content again, in one commit of a run, unless the last commit did so. The
    head's version."""
    with storage(f"table {path}"):
        head, last = delta.version(path), _last_cause(path)
        brought_back = last.get("operationParameters", {}).get("version") if last.get("operation") == RESTORE else None
        if head is not None and str(brought_back) == str(target):
            return head
        metadata, _, schema, wanted = delta.read_version(path, target)
        current = delta.files_of(path, head)
        indexed = tuple(re.findall("[^`,]+", metadata.configuration.get(SKIPPED_BY) or ""))
        properties = dict(metadata.configuration)
        if head is not None and CHANGE_FEED in delta.read_version(path, head).metadata.configuration:
            properties[CHANGE_FEED] = "true"  # also where an earlier release had none: the feed goes on
        definition = Definition(metadata.name, metadata.description, schema, indexed, properties)
        stays = wanted.keys() & current.keys() - _marked(path, head).keys()
        removed = {name: size for name, size in current.items() if name not in stays}
        added = [name for name in wanted if name not in stays]
        layer = (metadata.name or "").partition(".")[0]
        return write(path, definition, Cause(f"{layer}/{run}", RESTORE, {"version": str(target)}), added, removed)


def write(path: Path, definition: Definition, cause: Cause, added: Collection[str], removed: Mapping[str, int]) -> int:
    """Makes the next version of a table, in which the files `added` have come and those `removed`, with their bytes,
    are gone. Its version; the head's when nothing would change.

    ADR 10 says why it is not delta-rs that does it.
    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#add-file-and-remove-file
    """
    head, now = delta.version(path), time.time_ns() // 10**6
    definition = _indexing(definition)
    stored = None if head is None else delta.read_version(path, head)
    defined, is_change = _definition(definition, stored), cause.operation != COMPACTION
    if head is not None and not (added or removed or defined):
        return head
    adds = [_add_action(path / name, definition.indexed) | {"dataChange": is_change} for name in added]
    gone = {"deletionTimestamp": now, "extendedFileMetadata": True, "partitionValues": {}, "dataChange": is_change}
    info = {
        "timestamp": now,
        "operation": cause.operation,
        "operationParameters": cause.parameters,
        "isolationLevel": "Serializable",
        "isBlindAppend": is_change and not removed,
        "operationMetrics": _metrics(cause, adds, removed),
        "userMetadata": cause.run,
        "engineInfo": ENGINE,
    }
    if head is not None:
        info["readVersion"] = head
    lines: list[dict[str, Any]] = [{"commitInfo": info}, *defined]
    marked = _marked(path, head) if removed else {}
    lines += [{"remove": {"path": name, "size": size} | gone | marked.get(name, {})} for name, size in removed.items()]
    lines += [{"add": add} for add in adds]
    fed = [cause.feed] if cause.feed else []
    for name in fed:
        size = (path / name).stat().st_size
        lines.append({"cdc": {"path": name, "size": size, "partitionValues": {}, "dataChange": False}})
    return delta.write_commit(path, lines, [path / name for name in (*added, *fed)])


def _marked(path: Path, head: int | None) -> dict[str, dict[str, Any]]:
    """The files of which some rows count as deleted, as a commit says it: no run makes such, a DELETE by hand may."""
    if head is None or DELETES not in (delta.read_version(path, head).protocol.reader_features or ()):
        return {}
    adds = [line["add"] for at in delta.commits(path) for line in delta.lines_of(path, at) if "add" in line]
    last = {add["path"]: add.get("deletionVector") for add in adds}
    return {name: {"deletionVector": vector} for name, vector in last.items() if vector}


# Types, in Delta's words, whose extremes each reader understands and each file has. A reader may take a column for null
# that should have extremes and has none; others round decimals, do not read `1e-05`, or refuse extremes of bytes.
EXACT = re.compile(r"byte|short|integer|long|date|timestamp_ntz|decimal\(([1-9]|1[0-5]),[0-4]\)")

SKIPPED_BY, INDEXED_COLUMNS = "delta.dataSkippingStatsColumns", "delta.dataSkippingNumIndexedCols"


def _indexing(definition: Definition) -> Definition:
    """The definition with its indexed columns of EXACT types, and the property that names them, none or some."""
    types = {field.name: getattr(field.type, "type", "") for field in definition.schema.fields}
    indexed = tuple(name for name in definition.indexed if EXACT.fullmatch(types.get(name, "")))
    named = ",".join(name if re.fullmatch("[A-Za-z0-9_]+", name) else f"`{name}`" for name in indexed)
    others = {name: value for name, value in definition.properties.items() if name not in (SKIPPED_BY, INDEXED_COLUMNS)}
    return replace(
        definition, indexed=indexed, properties=others | ({SKIPPED_BY: named} if named else {INDEXED_COLUMNS: "0"})
    )


def _require_same(path: Path, head: int, definition: Definition) -> None:
    """Raises StorageFault when another table is there. With an older name, a table must have known columns only."""
    stored = delta.read_version(path, head)
    there, name = stored.metadata.name or "", definition.name or ""
    columns, known = ({field.name for field in schema.fields} for schema in (stored.schema, definition.schema))
    if there != name and not (there in delta.older_names(name) and columns <= known):
        raise StorageFault(f"table {path}: another table is there, {there or 'one without a name'}; move it away")


def _cause(table: Table, change: Change, removes: bool) -> Cause:
    run = f"{table.layer}/{change.run}"
    if change.kept is None:
        return Cause(run, "WRITE", {"mode": "Overwrite", "partitionBy": "[]"})
    if change.compacts:
        return Cause(run, COMPACTION, {"predicate": "[]", "auto": False})
    if removes:
        predicate = " AND ".join(f"t.`{key}` = s.`{key}`" for key in table.keys)
        return Cause(run, MERGE, {"predicate": json.dumps([predicate])}, change.counts, change.feed)
    return replace(appended(run), feed=change.feed) if change.added else Cause(run, "UPDATE SCHEMA", {})


def appended(run: str) -> Cause:
    return Cause(run, "WRITE", {"mode": "Append", "partitionBy": "[]"})


MERGE, COMPACTION, RESTORE = "MERGE", "OPTIMIZE", "RESTORE"

# The metrics of an operation as Spark names them: files and bytes that were added, files and bytes that were removed.
METRICS = {
    "WRITE": ("numFiles", "numOutputBytes", "numRemovedFiles", "numRemovedBytes"),
    MERGE: ("numTargetFilesAdded", "numTargetBytesAdded", "numTargetFilesRemoved", "numTargetBytesRemoved"),
    COMPACTION: ("numAddedFiles", "numAddedBytes", "numRemovedFiles", "numRemovedBytes"),
    RESTORE: ("numRestoredFiles", "restoredFilesSize", "numRemovedFiles", "removedFilesSize"),
}

MERGED_ROWS = ("numTargetRowsInserted", "numTargetRowsUpdated", "numTargetRowsDeleted")


def _metrics(cause: Cause, adds: Sequence[Mapping[str, Any]], removed: Mapping[str, int]) -> dict[str, str]:
    counts = (len(adds), sum(add["size"] for add in adds), len(removed), sum(removed.values()))
    metrics = dict(zip(METRICS.get(cause.operation, ()), map(str, counts), strict=False))
    if cause.rows:
        metrics |= dict(zip(MERGED_ROWS, map(str, cause.rows), strict=True))
    return metrics | {"numOutputRows": str(sum(json.loads(add["stats"])["numRecords"] for add in adds))}


CHANGE_FEED = "delta.enableChangeDataFeed"

# Features of a table, as its protocol names them, and what in its schema or its properties needs them.
NOT_NULL, WITHOUT_ZONE, CHANGES = "invariants", "timestampNtz", "changeDataFeed"
FEATURES = {'"nullable":false': NOT_NULL, '"timestamp_ntz"': WITHOUT_ZONE, CHANGE_FEED: CHANGES}

OLDEST, ITS_FEATURES = ProtocolVersions(1, 2, None, None), {"appendOnly", NOT_NULL}

DELETES = "deletionVectors"


def _definition(definition: Definition, stored: delta.Version | None) -> list[dict[str, Any]]:
    """The lines of a commit that say what the table is, if it is not that already: its protocol, its metadata.

    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#change-metadata
    """
    text, configuration = definition.schema.to_json(), dict(definition.properties)
    lines, known = _protocol(f"{text} {' '.join(configuration)}", stored), stored.metadata if stored else None
    if stored and known:
        schema, properties = json.loads(stored.schema.to_json()), dict(known.configuration)
        there = (known.name, known.description, known.partition_columns, properties, schema)
        if there == (definition.name, definition.comment, [], configuration, json.loads(text)):
            return lines
    metadata: dict[str, Any] = {
        "id": known.id if known else str(uuid.uuid4()),
        "name": definition.name,
        "description": definition.comment,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": text,
        "partitionColumns": [],
        "configuration": configuration,
        "createdTime": known.created_time if known else time.time_ns() // 10**6,
    }
    return [*lines, {"metaData": metadata}]


def _protocol(definition: str, stored: delta.Version | None) -> list[dict[str, Any]]:
    """The line of a commit that names the features that a definition needs, if the table's protocol has not all of
    them, or has some that no run uses: somebody raised it by hand, and not every reader knows them."""
    needed = {feature for sign, feature in FEATURES.items() if sign in definition}
    protocol = stored.protocol if stored else OLDEST
    readers, writers = {*(protocol.reader_features or ())}, {*(protocol.writer_features or ITS_FEATURES)}
    usual = protocol.min_reader_version in (1, delta.PROTOCOL[0]) and protocol.min_writer_version in (1, 2, 7)
    usual = usual and readers <= {WITHOUT_ZONE} and writers <= ITS_FEATURES | {WITHOUT_ZONE, CHANGES}
    if stored and usual and needed <= writers:
        return []
    used = needed | ({WITHOUT_ZONE} & readers)
    if used <= ITS_FEATURES and not (stored and usual):
        return [{"protocol": {"minReaderVersion": OLDEST[0], "minWriterVersion": OLDEST[1]}}]
    reader, writer = delta.PROTOCOL if WITHOUT_ZONE in used else (OLDEST[0], delta.PROTOCOL[1])
    features = {"readerFeatures": [WITHOUT_ZONE]} if WITHOUT_ZONE in used else {}
    features["writerFeatures"] = sorted(used | ITS_FEATURES)
    return [{"protocol": {"minReaderVersion": reader, "minWriterVersion": writer} | features}]


def written_by_hand(path: Path) -> str:
    """The last commit of a table, as `WRITE by Apache-Spark/4.2.0`; empty when a run made it."""
    last = _last_cause(path)
    operation, engine = last.get("operation", "change"), last.get("engineInfo") or "another program"
    by_run = "userMetadata" in last or engine == ENGINE or operation == RESTORE
    return "" if by_run else f"{operation} by {engine.split()[0]}"


def _last_cause(path: Path) -> dict[str, Any]:
    """What the last commit of a table says of itself; nothing when it does not."""
    return next((line["commitInfo"] for line in delta.last_commit(path) if "commitInfo" in line), {})


def _add_action(file: Path, indexed: Collection[str]) -> dict[str, Any]:
    """What a commit says of a data file that it adds."""
    stat, stats = file.stat(), json.dumps(statistics(file, indexed))
    known = {"path": file.name, "size": stat.st_size, "partitionValues": {}, "stats": stats}
    return known | {"modificationTime": stat.st_mtime_ns // 10**6}


def statistics(file: Path, columns: Collection[str]) -> dict[str, Any]:
    """What Delta's log says of a file so that readers can skip it: its rows and, for columns of EXACT types, extremes
    and nulls.

    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics
    """
    footer = pq.read_metadata(file)
    known: dict[str, dict[str, Any]] = {"minValues": {}, "maxValues": {}, "nullCount": {}}
    is_tight: dict[str, bool] = {}
    for index in range(footer.num_columns):
        name = footer.schema.column(index).path
        if name not in columns:
            continue
        chunks = [footer.row_group(group).column(index).statistics for group in range(footer.num_row_groups)]
        if all(chunk and chunk.has_null_count and (chunk.has_min_max or not chunk.num_values) for chunk in chunks):
            nulls = sum(chunk.null_count for chunk in chunks)
            values = [value for chunk in chunks if chunk.has_min_max for value in (chunk.min, chunk.max)]
        else:  # whoever wrote the file left them out
            (column,) = pq.read_table(file, columns=[name], partitioning=None).columns
            nulls, values = (
                column.null_count,
                [value for value in pc.min_max(column).as_py().values() if value is not None],
            )
        known["nullCount"][name] = nulls
        if values:
            low, high = min(values), max(values)
            known["minValues"][name] = _as_json(NO_DAYS[0] if _is_no_day(low) else low)
            known["maxValues"][name] = _as_json(NO_DAYS[1] if _is_no_day(high) else high)
            if _is_no_day(low) or _is_no_day(high):
                is_tight = {"tightBounds": False}
    return {"numRecords": footer.num_rows, **is_tight, **known}


# Between these, Spark takes a day in a log for a later one: there are none in its calendar of old.
NO_DAYS = date(1582, 10, 4), date(1582, 10, 15)


def _is_no_day(value: object) -> bool:
    return type(value) is date and NO_DAYS[0] < value < NO_DAYS[1]


def _as_json(value: int | Decimal | date) -> int | float | str:
    """A value as the log writes it."""
    if isinstance(value, Decimal):  # without a point where its type has none
        return float(value) if value.as_tuple().exponent else int(value)
    return value.isoformat() if isinstance(value, date) else value
