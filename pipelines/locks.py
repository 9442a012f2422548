"""Locks between processes, each of which says who holds it. The lock of a process that is gone does not block."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.errors import LockedFault


@contextmanager
def held(path: Path, what: str, seconds: float = 0) -> Iterator[None]:
    """Holds the lock file `path` while the context lasts. Raises LockedFault, naming the holder of `what`, at once or
    after some seconds."""
    lock = FileLock(path, timeout=seconds, mode=0o600)
    try:
        lock.acquire()
    except Timeout as error:
        raise LockedFault(f"{_holder(path)} works on {what}; wait for it to end, or stop it") from error
    try:
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}
        with suppress(OSError):  # a full disk must not stop the process that frees it
            path.write_text(json.dumps(note), "utf-8")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """The process that holds the lock, as it wrote itself down; it may not have come to that yet."""
    try:
        note = json.loads(path.read_text("utf-8"))
        return f"process {note['pid']} on {note['host']}, since {note['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
