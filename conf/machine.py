"""How much memory there is: of the machine, or as much of it as the control group of this process may take."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

# Where a control group's limit stands, by the controllers of its line in /proc: version 1, version 2.
LIMITS = {"memory": "sys/fs/cgroup/memory{}/memory.limit_in_bytes", "": "sys/fs/cgroup{}/memory.max"}


def memory_bytes(root: Path = Path("/")) -> int:
    """The machine's memory, or the least limit of the control groups above this process, if that is less."""
    return min((os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits(root)))


def _limits(root: Path) -> Iterator[int]:
    """A container may not see its groups by their names, but has their limit at the top."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            for name in (*PurePosixPath(group).parents, PurePosixPath(group)) if controllers in LIMITS else ():
                with suppress(OSError, ValueError):  # "max" is no limit
                    yield int((root / LIMITS[controllers].format("" if str(name) == "/" else name)).read_text("utf-8"))
