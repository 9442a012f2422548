"""Delta tables as versions made of Parquet files: their logs, and the check of both before use."""

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Metadata, Schema
from deltalake.exceptions import DeltaError
from deltalake.table import ProtocolVersions

from conf.contract import Pii, Table
from pipelines.core.errors import StorageFault
from pipelines.core.names import QUARANTINE
from pipelines.core.points import Point, crash_point
from pipelines.lake import durable
from pipelines.lake.folders import read_once, scratch, storage

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


def older_names(name: str) -> set[str]:
    """What older software called a table in its log: nothing, or without layer and domain."""
    return {"", name.rpartition(".")[2].removesuffix(QUARANTINE)}


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
    """The versions whose commits lie in the table's log, in order, without those at its end that are cut off."""
    numbers = _numbers(path)
    while numbers and _how_cut_off(path / _commit(numbers[-1])):
        numbers.pop()
    return numbers


def _numbers(path: Path, pattern: re.Pattern[str] = COMMIT) -> list[int]:
    return sorted(int(match[1]) for file in (path / LOG).iterdir() if (match := pattern.fullmatch(file.name)))


def last_commit(path: Path) -> list[dict[str, Any]]:
    """The lines of the table's last commit."""
    with storage(f"table {path}"):
        return lines_of(path, version(path) or 0)


def lines_of(path: Path, number: int) -> list[dict[str, Any]]:
    """The lines of a commit of a table."""
    return _lines(path / _commit(number))


def cut_off(path: Path) -> list[Path]:
    """The commits at the end of the table's log that did not reach the disk in full, as when the power fails. Whoever
    made them did not complete: a run that does is recorded after its commits are on the disk."""
    with storage(f"table {path}"):
        numbers = _numbers(path)
        return [path / _commit(number) for number in numbers[len(commits(path)) :]]


def make_folder(path: Path, folder: str = "") -> None:
    """Creates the folder of a table with an empty log, which marks it as ours before the first file is in it; and a
    folder of that name in it, whose name a commit brings to the disk."""
    version(path)  # refuses a folder that is not ours
    with storage(f"table {path}"):
        durable.make_folder(path / LOG)
        (path / folder).mkdir(exist_ok=True)


class Version(NamedTuple):
    """What the log says of a version: what the table is, and its data files, by their paths from the table's folder,
    with their bytes."""

    metadata: Metadata
    protocol: ProtocolVersions
    schema: Schema
    files: Mapping[str, int]


def read_version(path: Path, at: int) -> Version:
    """What the log of the table `path` says of a version."""
    commit = path / _commit(at)
    with storage(f"file {commit}"):
        return _read_version(commit)


@partial(read_once, files=256)
def _read_version(commit: Path) -> Version:
    table = DeltaTable(commit.parent.parent, version=int(commit.stem))
    # Not file_uris(): it percent-encodes the table's folder.
    adds = pa.table(table.get_add_actions()).select(["path", "size_bytes"]).to_pydict()
    return Version(table.metadata(), table.protocol(), table.schema(), dict(zip(*adds.values(), strict=True)))


def files_of(path: Path, at: int | None) -> Mapping[str, int]:
    """The data files of a version, by their paths from the table's folder, with their bytes; none before the first
    version."""
    return {} if at is None else read_version(path, at).files


def file_paths(path: Path, at: int | None) -> list[str]:
    """The data files of a version; none before the first version."""
    return [str(path / name) for name in files_of(path, at)]


PARTS = "part-[0-9]*-*.parquet"


def part_name(run: int, which: str = "") -> str:
    """The name of a data file that a run makes, a new one, or the pattern of all."""
    return f"part-{run:05d}-{which or uuid.uuid4().hex}.parquet"


FEED = "_change_data"  # the folder of a table's change data files

# What such a file says of its rows, in the words of Delta's change feed: those that go, and those that come.
CHANGE, GONE, CAME = "_change_type", ("update_preimage", "delete"), ("update_postimage", "insert")


def feed(path: Path, after: int, upto: int) -> list[str] | None:
    """The change data files of the commits between two versions of a table: all rows in which they differ. None when a
    commit changed rows without one, or when something of it is gone or cut off."""
    files = list[str]()
    for at in range(after + 1, upto + 1):
        if not (path / _commit(at)).exists():
            return None
        lines = lines_of(path, at)
        fed = {path / line["cdc"]["path"]: line["cdc"]["size"] for line in lines if "cdc" in line}
        changes = any(line[action]["dataChange"] for line in lines for action in ("add", "remove") if action in line)
        if changes and not (fed and all(file.exists() and file.stat().st_size == size for file, size in fed.items())):
            return None
        files += map(str, fed)
    return None if after > upto else files


def added_since(path: Path, first: int) -> set[str]:
    """The data files and change data files, from the table's folder, that commits from a version on add: who reads the
    change feed needs those of a commit that was undone, too."""
    lines = (line for number in commits(path) if number >= first for line in lines_of(path, number))
    return {line[action]["path"] for line in lines for action in ("add", "cdc") if action in line}


def sweep(path: Path, run: int, staged: Collection[str] = ()) -> None:
    """Removes the files of a run that no commit of a table names, but those `staged`: they were written in vain."""
    with storage(f"table {path}"):
        if files := [*path.glob(part_name(run, "*")), *path.glob(f"{FEED}/{part_name(run, '*')}")]:
            head = version(path)
            named = {*staged, *files_of(path, head)} | (set() if head is None else added_since(path, 0))
            for file in (file for file in files if str(file.relative_to(path)) not in named):
                file.unlink(missing_ok=True)


def write_commit(path: Path, lines: Iterable[dict[str, Any]], files: list[Path]) -> int:
    """Makes the next version of a table: writes its commit into the log, after the data `files` that it adds. When this
    returns, all of it is on the disk. The version.

    Source: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#delta-log-entries
    """
    crash_point(Point.TABLE_PROVED)
    head = version(path)
    target = 0 if head is None else head + 1
    if files:
        durable.finish(files)
        for folder in sorted({path, *(file.parent for file in files)}):
            durable.sync(folder)
    with scratch(path, "run") as folder:
        durable.write(folder / "commit", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
        crash_point(Point.COMMIT_WRITTEN)
        final = path / _commit(target)
        try:
            durable.rename(folder / "commit", final)  # in full or not at all; the lock keeps others out
        except OSError:  # nobody can say if it will be there after a power cut
            final.unlink(missing_ok=True)
            raise
    if target and target % CHECKPOINT_EVERY == 0:
        with suppress(OSError, DeltaError):  # without a checkpoint the log is only longer to read
            _write_checkpoint(path, target)
    return target


def _write_checkpoint(path: Path, at: int) -> None:
    """Lets delta-rs make the checkpoint of a version beside the table, from a copy of what is new in its log."""
    last = max((number for number in _numbers(path, CHECKPOINT) if number < at), default=0)
    with scratch(path, "run") as folder:
        (folder / LOG).mkdir()
        for file in (file for number, file in _log_files(path) if number >= last):
            shutil.copy(file, folder / LOG)
        DeltaTable(folder, version=at).create_checkpoint()
        for file in (*(folder / LOG).glob(f"{at:020d}.checkpoint*"), folder / LOG / "_last_checkpoint"):
            durable.sync(file)
            durable.rename(file, path / LOG / file.name)


def shorten_log(path: Path) -> None:
    """Removes what a table's log has from before its last checkpoint but one. The versions of that time are gone."""
    for first in _numbers(path, CHECKPOINT)[-2:-1]:
        for file in (file for number, file in _log_files(path) if number < first):
            file.unlink(missing_ok=True)


def _log_files(path: Path) -> list[tuple[int, Path]]:
    """The commits and checkpoints in the table's log with their versions, oldest first: who removes some in this order
    leaves no gap."""
    files = ((COMMIT.fullmatch(file.name) or CHECKPOINT.fullmatch(file.name), file) for file in (path / LOG).iterdir())
    return sorted((int(match[1]), file) for match, file in files if match)


def checked(path: Path, at: int | None, names: Sequence[str], run: str = "") -> str:
    """The fingerprint of a table's files in a version, which `run` left, or in its head. No row is read.

    Raises StorageFault naming the table and the file when the log or a file is damaged, or the table has none of the
    `names`, of which the first is today's.
    delta-rs skips an empty commit and reports a missing one with a riddle, so the log is checked here first.
    """
    numbers = _checked_log(path)
    if at is not None and at not in numbers:
        require_end(path)
        raise StorageFault(f"table {path}: {_commit(at)} is missing, which {run} wrote")
    content = read_version(path, numbers[-1] if at is None else at)
    if (content.metadata.name or "") not in names:
        actual = content.metadata.name or "one without a name"
        raise StorageFault(f"table {path}: {LOG} is of another table, {actual}, not {names[0]}")
    for file, size in ((path / name, size) for name, size in content.files.items()):
        if not file.exists():
            raise StorageFault(f"file {file} is gone")
        with storage(f"file {file}"):
            actual_size = file.stat().st_size
            if actual_size != size:
                raise StorageFault(f"file {file} has {actual_size:,} bytes, the table's log says {size:,}")
            _check_footer(file)
    return fingerprint(content.files)


@read_once
def _check_footer(file: Path) -> None:
    pq.read_metadata(file)


def fingerprint(files: Mapping[str, int]) -> str:
    """The fingerprint of a version's files, by their names and sizes."""
    return hashlib.sha256("\n".join(sorted(f"{name} {size}" for name, size in files.items())).encode()).hexdigest()


def _checked_log(path: Path) -> list[int]:
    """The versions whose commits are there. Raises StorageFault when one is missing, or is damaged and has others after
    it."""
    if version(path) is None:
        raise StorageFault(f"table {path} is gone")
    with storage(f"table {path}"):
        numbers, checkpoint = commits(path), max(_numbers(path, CHECKPOINT), default=-1)
    first = numbers[0] if checkpoint >= numbers[0] else 0
    if missing := sorted(set(range(first, numbers[-1] + 1)) - set(numbers)):
        raise StorageFault(f"table {path}: {_commit(missing[0])} is missing")
    for number in (number for number in numbers if number > checkpoint):
        _check_commit(path / _commit(number))
    for file in (path / LOG).glob(f"{checkpoint:020d}.checkpoint*.parquet"):
        try:
            _check_footer(file)
        except (OSError, pa.ArrowException) as error:
            mend = f"delete it and {LOG}/_last_checkpoint: the commits say the same"
            raise StorageFault(f"table {path}: {LOG}/{file.name} is damaged; {mend}") from error
    return numbers


def require_end(path: Path) -> None:
    """Raises StorageFault when the last commit of a table is cut off. For when a run is known to have made it."""
    for commit in cut_off(path)[:1]:
        _check_commit(commit)


def _check_commit(commit: Path) -> None:
    with storage(f"file {commit}"):
        if fault := _how_cut_off(commit) or _newer_protocol(commit):
            raise StorageFault(f"table {commit.parent.parent}: {LOG}/{commit.name} {fault}")


@read_once
def _how_cut_off(commit: Path) -> str:
    """How a commit did not reach the disk in full, in words; empty when it did."""
    try:
        lines = _lines(commit)
        actions = {action for line in lines for action in line}
    except (ValueError, TypeError):
        return "is cut off or no JSON"
    if not lines:
        return "is empty"
    return "is cut off" if commit.stem == f"{0:020d}" and not {"protocol", "metaData"} <= actions else ""


@read_once
def _newer_protocol(commit: Path) -> str:
    """The protocol that a commit asks for, in words, if this software does not know it; empty otherwise."""
    for protocol in (line["protocol"] for line in _lines(commit) if "protocol" in line):
        reader, writer = protocol.get("minReaderVersion", 0), protocol.get("minWriterVersion", 0)
        if reader > PROTOCOL[0] or writer > PROTOCOL[1]:
            return f"is of a newer protocol of Delta (reader {reader}, writer {writer}) than this software knows"
    return ""


def _lines(commit: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in commit.read_bytes().splitlines()]


def _commit(number: int) -> str:
    return f"{LOG}/{number:020d}.json"
