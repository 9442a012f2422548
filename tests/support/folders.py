"""Where the tests write: in memory where the machine has room for it, as a disk is slow where files come and go."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.sources.postgres import embedded

MEMORY, ROOM = Path("/dev/shm"), 3 << 30  # bytes, of which a whole run uses a tenth


def has_room() -> bool:
    return os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM


def write_to_memory() -> None:
    """Lets this process and its children make their temporary files there, unless TMPDIR says where."""
    if "TMPDIR" not in os.environ and has_room():
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # asked again


@contextmanager
def server_home() -> Iterator[Path]:
    """A folder with a path that is short enough for a server's socket."""
    folder = Path(tempfile.mkdtemp(prefix="lakehouse-test-", dir=MEMORY if has_room() else "/var/tmp"))
    try:
        yield folder
    finally:
        embedded.remove(folder)
