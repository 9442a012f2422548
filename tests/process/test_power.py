"""A real file system whose power goes while the command line works and after it ended: copies of its disk, as they were
at random moments, are lakes that are sound and go on."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from conf.settings import Postgres
from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.process import connection_settings, family, start
from tests.support.source import KEYED, execute

CUTS, NIGHTS = 200, 10
SECONDS_AFTER = (0, 1, 4), (0, 10, 40)  # of the nights but each fifth, and of that

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Image:
    """A file that holds a file system, and where it is mounted."""

    file: Path
    folder: Path

    @contextmanager
    def mounted(self, options: str) -> Iterator[Path]:
        """Raises CalledProcessError when this machine lets nobody mount."""
        self.folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", options, self.file, self.folder], check=True, capture_output=True)
        try:
            yield self.folder
        finally:
            subprocess.run(["umount", self.folder], check=True)

    def copied(self, target: Path, processes: list[psutil.Process]) -> "Image":
        """A copy of the disk while the processes stand still. What the kernel writes meanwhile may tear a copy, as no
        power cut would: it is made until two are the same."""
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        other = target.with_suffix(".same")
        for _ in range(10):
            for copy in (target, other):
                subprocess.run(["cp", "--sparse=always", self.file, copy], check=True)
            if subprocess.run(["cmp", "-s", target, other]).returncode == 0:
                break
        other.unlink()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        return Image(target, target.with_suffix(".mounted"))


@pytest.fixture
def image(tmp_path: Path) -> Image:
    if os.geteuid() or shutil.which("mkfs.ext4") is None:
        pytest.skip("only root can mount a disk, and mkfs.ext4 has to be there")
    image = Image(tmp_path / "disk.img", tmp_path / "disk")
    with image.file.open("wb") as file:
        file.truncate(192 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image.file], check=True)
    try:
        with image.mounted("loop"):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine lets nobody mount a disk: {error.stderr.decode().strip()}")
    return image


def changes(night: int) -> tuple[str, ...]:
    return (
        f"UPDATE associado SET nome = 'Noite {night}' WHERE id = {night + 1}",
        f"DELETE FROM movimento WHERE id = {night + 1}",
        f"INSERT INTO movimento VALUES ({900 + night}, {night}.25, 'noite', '2024-05-05', {night + 1})",
    )


def night(lake: Lake, image: Image, number: int, chance: random.Random) -> list[tuple[Image, int]]:
    """A night in a process of its own, and copies of the disk meanwhile and afterwards, each with the number of nights
    that had ended by then."""
    copies: list[tuple[Image, int]] = []

    def copy(processes: list[psutil.Process], ended: int) -> None:
        copies.append((image.copied(image.file.with_name(f"{number}-{len(copies)}.img"), processes), ended))

    process = start(lake, "bronze", "silver", "gold")
    seconds_after = SECONDS_AFTER[number % 5 == 0]
    while process.poll() is None:
        time.sleep(chance.uniform(0, 0.8))
        if process.poll() is None and len(copies) < CUTS // NIGHTS - len(seconds_after):
            copy([psutil.Process(process.pid), *family(process)], number - 1)
    ended = time.monotonic()
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    for seconds in seconds_after:
        time.sleep(max(0.0, ended + seconds - time.monotonic()))
        copy([], number)
    return copies


def sound(lake: Lake, nights: int, cli: CliHere) -> None:
    """The commands answer, every night that had ended is there, the next run ends well, and all agrees."""
    cli.folder, environment = lake.folder, connection_settings(lake.address)
    for command in ("status", "history") if nights else ():
        assert cli(command, env=environment).returncode == 0, cli.errors.getvalue()
    for layer in LAYERS:
        runs = [head.run for head in run_log.heads(lake.settings().layer_path(layer))]
        assert runs in ([*range(1, nights + 1)], [*range(1, nights + 2)]), layer
    lake.run()
    assert cli("reconcile", env=environment).returncode == 0, cli.errors.getvalue()


def test_a_disk_whose_power_went_at_any_moment_has_each_night_that_ended_and_goes_on(
    image: Image, database: Postgres, any_spark: object, tmp_path: Path, cli_here: CliHere
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    lake = Lake(image.folder, database, any_spark)  # type: ignore[arg-type]
    execute(database, *KEYED)
    cuts = 0
    for number in range(1, NIGHTS + 1):
        with image.mounted(chance.choice(("loop", "loop,commit=60"))):
            copies = night(lake, image, number, chance)
        for copy, ended in copies:
            with copy.mounted("loop") as folder:
                sound(replace(lake, folder=folder), ended, cli_here)
                cuts += 1
            copy.file.unlink()
        execute(database, *changes(number))
    print(f"{cuts} cuts")
    assert cuts > CUTS * 0.9
