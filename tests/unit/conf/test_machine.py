"""How much memory Spark gets, of what a machine or a container has."""

from pathlib import Path

import pytest

from conf import machine
from conf.settings import Spark

GB = 2**30
EVERYTHING = machine.memory_bytes(Path("/nowhere"))


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/memory.max": f"{GB}\n"}, GB),  # a container
        ("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}, EVERYTHING),
        (
            "0::/system.slice/lakehouse.service\n",  # a unit of systemd, in a slice that has less
            {
                "sys/fs/cgroup/system.slice/memory.max": f"{GB}\n",
                "sys/fs/cgroup/system.slice/lakehouse.service/memory.max": f"{2 * GB}\n",
            },
            GB,
        ),
        (
            "4:memory:/docker/a1b2\n3:cpu,cpuacct:/docker/a1b2\n0::/\n",  # version 1, which hides the group's name
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GB}\n"},
            GB,
        ),
        (
            "4:memory:/ours\n",
            {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/ours/memory.limit_in_bytes": f"{GB}\n",
            },
            GB,
        ),
    ],
)
def test_a_limit_of_a_control_group_counts_as_the_machines_memory(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: int
) -> None:
    assert machine.memory_bytes(put(tmp_path, {"proc/self/cgroup": groups} | limits)) == expected


@pytest.mark.parametrize(
    ("gigabytes", "megabytes"), [(1, 1536), (2, 1536), (4, 2048), (5, 2560), (8, 3072), (16, 3072), (256, 3072)]
)
def test_spark_gets_half_of_the_memory_within_bounds(
    monkeypatch: pytest.MonkeyPatch, gigabytes: int, megabytes: int
) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: gigabytes * GB)
    assert Spark().driver_bytes == megabytes * 2**20


def test_what_is_given_counts_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: GB)
    assert Spark(driver_memory="12g").driver_bytes == 12 * GB
    assert Spark(driver_memory="600m").driver_bytes == 600 * 2**20
