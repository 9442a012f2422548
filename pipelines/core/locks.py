"""Locks between processes, each of which says who holds it. The lock of a process that is gone does not block."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.core.errors import LockedFault, StorageFault

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # a file system's answers

BRIEF, BRIEF_HOLDER_SECONDS = "brief", 600  # how long a holder that needs its lock briefly is waited for


@contextmanager
def held(path: Path, what: str, seconds: float = 0, brief: bool = False) -> Iterator[None]:
    """Holds the lock file `path` while the context lasts, `brief` if that is not for long. Raises LockedFault, naming
    the holder of `what`, after some seconds (0: at once, below 0: never); a brief holder is waited for. Raises
    StorageFault where the file system has no locks: the file of a process that was killed would block for ever."""
    lock = FileLock(path, timeout=seconds, mode=0o600, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        try:
            if not _note(path).get(BRIEF):
                raise
            lock.acquire(timeout=BRIEF_HOLDER_SECONDS)
        except Timeout:
            raise LockedFault(f"{_holder(path)} works on {what}; wait for it to end, or stop it") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise StorageFault(
            f"{what}: its file system has no locks (flock); use a local disk, or NFS 4 without `nolock`"
        ) from error
    try:
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, BRIEF: brief}
        with suppress(OSError):  # a full disk must not stop the process that frees it
            path.write_text(json.dumps(note), "utf-8")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """The process that holds the lock, as it noted itself; it may not have done so yet."""
    note = _note(path)
    return f"process {note['pid']} on {note['host']}, since {note['since']}," if "pid" in note else "another process"


def _note(path: Path) -> dict[str, Any]:
    try:
        note = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
