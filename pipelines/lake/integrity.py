"""Checks a table before it is trusted: the log has no gap, the files are as it names them. No row is read.

delta-rs skips an empty commit and reports a missing one with a riddle, so the log is checked here first.
"""

import hashlib
import json
import re
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.core.errors import StorageFault
from pipelines.lake import delta
from pipelines.lake.delta import LOG
from pipelines.lake.folders import storage

CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\..*parquet")


PROTOCOL = (3, 7)  # the newest reader and writer versions: later features have names instead of numbers


def checked(path: Path, version: int | None, name: str, at: str = "") -> str:
    """The fingerprint of a table's files in a version, which the run `at` left, or in its head.

    Raises StorageFault naming the table and the file when the log or a file is damaged, or the table is not `name`.
    """
    commits = _checked_log(path)
    if version is not None and version not in commits:
        raise StorageFault(f"table {path}: {_commit(version)} is missing, which {at} wrote")
    content = delta.version_content(path, commits[-1] if version is None else version)
    if content.name != name:
        actual = content.name or "one without a name"
        raise StorageFault(f"table {path}: {LOG} is of another table, {actual}, not {name}")
    files = [(path / file, size) for file, size in content.files]
    for file, size in files:
        check_file(file, size)
    return fingerprint(files)


def fingerprint(files: list[tuple[Path, int]]) -> str:
    """The fingerprint of a version's files, by their names and sizes."""
    return hashlib.sha256("\n".join(sorted(f"{file.name} {size}" for file, size in files)).encode()).hexdigest()


def check_file(file: Path, size: int) -> None:
    """Raises StorageFault unless the file is Parquet and as long as the log says."""
    if not file.exists():
        raise StorageFault(f"file {file} is gone")
    with storage(f"file {file}"):
        actual = file.stat().st_size
        if actual != size:
            raise StorageFault(f"file {file} has {actual:,} bytes, the table's log says {size:,}")
        pq.read_metadata(file)


def _checked_log(path: Path) -> list[int]:
    """The versions whose commits are there. Raises StorageFault when one is missing, empty or cut off."""
    if delta.version(path) is None:
        raise StorageFault(f"table {path} is gone")
    commits = delta.commits(path)
    checkpoints = [int(match[1]) for file in (path / LOG).iterdir() if (match := CHECKPOINT.fullmatch(file.name))]
    first = 0 if not any(checkpoint >= commits[0] for checkpoint in checkpoints) else commits[0]
    if missing := sorted(set(range(first, commits[-1] + 1)) - set(commits)):
        raise StorageFault(f"table {path}: {_commit(missing[0])} is missing")
    for version in (commit for commit in commits if commit > max(checkpoints, default=-1)):
        _check_commit(path, version)
    return commits


def _check_commit(path: Path, version: int) -> None:
    file = path / _commit(version)
    with storage(f"file {file}"):
        text = file.read_bytes()
    try:
        lines = [json.loads(line) for line in text.splitlines()]
        protocols = [line["protocol"] for line in lines if "protocol" in line]
    except (ValueError, TypeError) as error:
        raise StorageFault(f"table {path}: {_commit(version)} is cut off or no JSON") from error
    if not lines:
        raise StorageFault(f"table {path}: {_commit(version)} is empty")
    for protocol in protocols:
        needs = protocol.get("minReaderVersion", 0), protocol.get("minWriterVersion", 0)
        if needs[0] > PROTOCOL[0] or needs[1] > PROTOCOL[1]:
            newer = f"a newer protocol of Delta (reader {needs[0]}, writer {needs[1]}) than this software knows"
            raise StorageFault(f"table {path}: {_commit(version)} is of {newer}")


def _commit(version: int) -> str:
    return f"{LOG}/{version:020d}.json"
