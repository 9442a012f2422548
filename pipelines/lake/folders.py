"""The lake's folders: locks, scratch space, names of files."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import psutil
import pyarrow as pa
from deltalake.exceptions import DeltaError

from conf.contract import Table
from conf.settings import Settings
from pipelines.core import locks, shortage
from pipelines.core.errors import StorageFault
from pipelines.core.names import LAYERS
from pipelines.lake import durable

Result = TypeVar("Result")

LOCK, CSV_LOCK = ".lock", ".csv.lock"
SPARK_CONF = "spark.conf"  # in the folder of `make catalog`: the properties with which a Spark has the names
BY_CATALOG = "# Written by `make catalog`."  # its first line
TEMPORARY = "lakehouse"


@contextmanager
def storage(what: str) -> Iterator[None]:
    """Turns an error of the file system, of delta-rs or of Arrow into a StorageFault that names `what`, or into a
    MemoryFault."""
    try:
        yield
    except (OSError, DeltaError, pa.ArrowException) as error:
        if fault := shortage.fault_of(error, what):
            raise fault from error
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageFault(f"{what}: {text.splitlines()[0]}") from error


def read_once(read: Callable[[Path], Result], files: int = 1024) -> Callable[[Path], Result]:
    """Remembers what was read from a file while the file is the same, of so many files: a run asks for its layers' logs
    many times."""

    @lru_cache(maxsize=files)
    def remembered(file: Path, *_: int) -> Result:
        return read(file)

    def current(file: Path) -> Result:
        stat = file.stat()
        return remembered(file, stat.st_ino, stat.st_size, stat.st_mtime_ns)

    return current


def is_catalogue(folder: Path) -> bool:
    """Whether `make catalog` made a folder."""
    with storage(f"folder {folder}"):
        file = folder / SPARK_CONF
        return file.is_file() and file.read_bytes().startswith(BY_CATALOG.encode())


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """A temporary folder in `folder`, open to its owner only; those that killed processes left are removed."""
    for path in left(folder, name):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    prefix = f".{name}.{os.getpid()}."
    with ExitStack() as stack:
        # A JVM that ends may still write: what stays then is removed the next time.
        made = stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=prefix, ignore_cleanup_errors=True))
        with suppress(OSError):  # a file system without locks; else other containers, too, see that we are there
            stack.enter_context(flocked(Path(made), fcntl.LOCK_SH))
        yield Path(made)


@contextmanager
def flocked(path: Path, operation: int) -> Iterator[None]:
    """Holds the system's lock of a file or folder, which makes no other file. Raises OSError: a BlockingIOError when
    another process has it and the `operation` is not to wait."""
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(opened, operation)
        yield
    finally:
        os.close(opened)


@contextmanager
def temporary() -> Iterator[Path]:
    """A scratch folder for what belongs to no layer, where TMPDIR says. Raises StorageFault."""
    with ExitStack() as stack:
        with storage("no folder can be made for temporary files; name one in TMPDIR"):
            folder = stack.enter_context(scratch(Path(tempfile.gettempdir()), TEMPORARY))
        yield folder


@contextmanager
def beside(final: Path) -> Iterator[Path]:
    """A place for a file beside `final`, open to its owner only, to be written and then renamed: nobody sees half a
    file. It is gone in the end; those that killed processes left are removed."""
    with ExitStack() as stack:
        with storage(f"folder {final.parent}"):
            folder = stack.enter_context(scratch(final.parent, final.name))
        yield folder / final.name


def left(folder: Path, name: str) -> Iterator[Path]:
    """What processes that are gone left in a folder of scratch folders of this name. Those of other users stay."""
    for path in folder.glob(f".{name}.*"):
        pid = path.name.removeprefix(f".{name}.").split(".")[0]
        with suppress(FileNotFoundError):  # another process may do the same now
            if pid.isdigit() and path.lstat().st_uid == os.getuid() and is_left(path, int(pid)):
                yield path


def is_left(path: Path, pid: int) -> bool:
    """Whether the process that made `path` is gone. Another may have its id now; in a new container we often do."""
    try:
        with flocked(path, fcntl.LOCK_EX | fcntl.LOCK_NB):
            pass
    except BlockingIOError:
        return False
    except OSError:  # only the process can tell
        pass
    try:
        return bool(psutil.Process(pid).create_time() > path.stat().st_mtime + 1)
    except (psutil.Error, OSError):
        return True


@contextmanager
def locked(settings: Settings, patient: bool = False) -> Iterator[None]:
    """Holds the lock of every layer, or raises LockedFault at once; a `patient` caller, who needs it briefly, waits.
    Folders are made if they are not there; those with plain card numbers are closed to all but their owner. Raises
    StorageFault when a folder has files but was not made here."""
    with ExitStack() as held:
        for layer in LAYERS:
            path = settings.layer_path(layer)
            with storage(f"{layer} folder {path}"):
                durable.make_folder(path, 0o750)
                if any(path.iterdir()) and not (path / LOCK).exists():
                    raise StorageFault(f"{layer} folder {path} holds other files; name an empty one")
                is_new = not (path / LOCK).exists()
                held.enter_context(locks.held(path / LOCK, str(path), -1 if patient else 0, brief=patient))
                if is_new:
                    durable.sync(path)
                # Never more open than it is: older versions may have plain card numbers.
                closed = 0o700 if layer == "bronze" or settings.card_numbers == "plain" else 0o750
                path.chmod(path.stat().st_mode & closed)
        yield


@contextmanager
def publishing(settings: Settings) -> Iterator[None]:
    """A run that names its CSV and records itself, and an export, wait for each other here."""
    with locks.held(settings.gold_path / CSV_LOCK, f"the CSV in {settings.export_path}", seconds=30):
        yield


def table_path(layer_path: Path, table: Table, suffix: str = "") -> Path:
    """The folder of a table, or of what lies beside it under a suffix."""
    return layer_path / table.domain / (table.name + suffix)


def csv_path(settings: Settings, table: Table) -> Path:
    return settings.export_path / f"{table.name}.csv"


def sha256(path: Path) -> str:
    """The hash of a file, in hex. Raises StorageFault."""
    with storage(f"file {path}"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
