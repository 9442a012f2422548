"""One process at a time works on a lake."""

import subprocess
import sys
from pathlib import Path

import pytest

from conf.settings import PROJECT, load
from pipelines.core.errors import LockedFault
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
