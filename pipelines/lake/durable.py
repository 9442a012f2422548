"""What has to be on the disk before something else counts, so that a power cut loses nothing that a run recorded (ADR
30). Nothing else in the lake asks the file system to sync."""

import errno
import fcntl
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, S_ISREG

from pipelines.core.umask import OTHERS_WRITE

_AT_ONCE = ThreadPoolExecutor(max_workers=4, thread_name_prefix="sync")
_begun: dict[Path, Future[None]] = {}


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk; of the file, too, that others may not write to it,
    as a JVM that somebody else started let them. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        mode = os.fstat(descriptor).st_mode
        if S_ISREG(mode) and mode & OTHERS_WRITE:
            with suppress(PermissionError):  # an executor of another user wrote it
                os.fchmod(descriptor, S_IMODE(mode) & ~OTHERS_WRITE)
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where fsync leaves the bytes in the drive's cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does not sync folders
            raise
    finally:
        os.close(descriptor)


def begin(files: Iterable[Path]) -> None:
    """Starts to bring complete files to the disk, beside other work. `finish` waits for them."""
    for file in files:
        _begun[file] = _AT_ONCE.submit(sync, file)


def finish(files: Iterable[Path]) -> None:
    """Waits until files are on the disk, those that `begin` had and others. Raises OSError."""
    for syncing in [_begun.pop(file) if file in _begun else _AT_ONCE.submit(sync, file) for file in files]:
        syncing.result()


def write(file: Path, content: bytes) -> None:
    """Writes a file and waits until it is on the disk; its name may not be, yet."""
    file.write_bytes(content)
    sync(file)


def rename(file: Path, final: Path) -> None:
    """Gives a file that is on the disk its final name, in one step, and waits until the name is there, too."""
    file.replace(final)
    sync(final.parent)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Makes a folder and those that it lies in, and waits until their names are on the disk."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode, parents=True, exist_ok=True)
    for path in made:
        sync(path.parent)
