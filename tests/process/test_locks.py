"""One process at a time works on a lake."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conf.settings import PROJECT, load
from pipelines.core.errors import LockedFault, StorageFault
from pipelines.lake import folders


def test_a_lake_is_one_process_at_a_time_and_a_killed_one_does_not_block(tmp_path: Path) -> None:
    settings, _ = load({"LAKEHOUSE_ROOT": "a lake"}, base=tmp_path)
    holder = (
        "import sys, time; from pathlib import Path; from conf.settings import load; from pipelines.lake import folders\n"
        "with folders.locked(load({'LAKEHOUSE_ROOT': 'a lake'}, base=Path(sys.argv[1]))[0]):\n"
        "    print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with (
            pytest.raises(LockedFault, match=f"process {process.pid} on .*, since .* UTC, works on .*bronze; wait"),
            folders.locked(settings),
        ):
            pass
        process.kill()
    with folders.locked(settings):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused_each_time_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    settings, _ = load({"LAKEHOUSE_ROOT": "a lake"}, base=tmp_path)
    for _ in range(2):
        with pytest.raises(StorageFault, match=r"bronze: its file system has no locks \(flock\); use a local disk"):
            folders.locked(settings).__enter__()
    assert [path.name for path in settings.bronze_path.iterdir()] == [".lock"]
