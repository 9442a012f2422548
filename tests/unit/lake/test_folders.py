"""Scratch folders: closed to others, and gone with their process, or with the next that comes."""

import fcntl
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conf.settings import PROJECT
from pipelines.lake import durable, folders

HOLDER = """
import os, signal
from pipelines.lake import folders
with folders.temporary() as folder:
    (folder / "spill").write_text("4111111111111111")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_in_tmpdir_is_found_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", HOLDER]
    killed = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    left = Path(killed.stdout.strip())
    assert left.parent == tmp_path and [*left.iterdir()] and left.stat().st_mode & 0o7777 == 0o700
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine, foreign = tmp_path / f".lakehouse.{os.getppid()}.x", tmp_path / ".lakehouse.99999999.x"
    for path in (mine, foreign):
        path.mkdir()
    with folders.temporary() as folder:
        assert {*tmp_path.iterdir()} == {folder, mine}, "the process of one of them is still there"


def test_a_folder_of_an_earlier_process_of_our_number_is_left_and_our_own_are_not(tmp_path: Path) -> None:
    """In a container each process has the number of the one before."""
    earlier = tmp_path / f".run.{os.getpid()}.earlier"
    earlier.mkdir()
    os.utime(earlier, (1_700_000_000,) * 2)
    with folders.scratch(tmp_path, "run") as first, folders.scratch(tmp_path, "run") as second:
        assert {*tmp_path.iterdir()} == {first, second}


def test_a_folder_of_a_process_of_another_container_stays_while_that_works(tmp_path: Path) -> None:
    """Its process is not to be seen from here, and our number may be its number."""
    for name in (".lakehouse.99999999.x", f".lakehouse.{os.getpid()}.x"):
        (tmp_path / name).mkdir()
        opened = os.open(tmp_path / name, os.O_RDONLY)
        fcntl.flock(opened, fcntl.LOCK_SH)
        assert [*folders.left(tmp_path, "lakehouse")] == []
        os.close(opened)
        os.utime(tmp_path / name, (1_700_000_000,) * 2)
        assert [*folders.left(tmp_path, "lakehouse")] == [tmp_path / name]
        (tmp_path / name).rmdir()


def test_threads_that_make_folders_at_the_same_time_leave_each_others_alone(tmp_path: Path) -> None:
    def make(_: int) -> None:
        for _ in range(100):
            with folders.scratch(tmp_path, "run") as folder:
                (folder / "file").touch()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(8))) == [None] * 8


def test_a_file_that_others_may_write_to_is_closed_before_it_counts(tmp_path: Path) -> None:
    """As a JVM makes one that somebody else started, with a umask of 0."""
    file = tmp_path / "part.parquet"
    file.touch()
    file.chmod(0o666)
    tmp_path.chmod(0o777)
    durable.sync(file)
    durable.sync(tmp_path)
    assert (file.stat().st_mode & 0o777, tmp_path.stat().st_mode & 0o777) == (0o644, 0o777), "a folder is its owner's"


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders to others")
def test_the_temporary_folders_of_other_users_stay(tmp_path: Path) -> None:
    other = tmp_path / ".lakehouse.99999999.x"
    other.mkdir()
    os.chown(other, 12345, -1)
    assert [*folders.left(tmp_path, "lakehouse")] == []
    os.chown(other, 0, -1)
    assert [*folders.left(tmp_path, "lakehouse")] == [other]
