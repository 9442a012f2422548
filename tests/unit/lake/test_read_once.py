"""What was read from a file is remembered while the file is the same, and no longer."""

import os
from pathlib import Path

import pytest

from pipelines.lake.folders import read_once


def test_a_file_is_read_once_and_again_when_it_is_another(tmp_path: Path) -> None:
    reads: list[str] = []

    @read_once
    def content(file: Path) -> str:
        reads.append(file.name)
        return file.read_text()

    file = tmp_path / "a"
    file.write_text("one")
    assert (content(file), content(file), len(reads)) == ("one", "one", 1)
    other = tmp_path / "b"
    other.write_text("two")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)  # of the same size and time
    assert (content(file), len(reads)) == ("two", 2)
    file.write_text("longer")
    assert (content(file), len(reads)) == ("longer", 3)


def test_what_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    reads: list[Path] = []

    @read_once
    def damaged(file: Path) -> None:
        reads.append(file)
        raise ValueError

    (tmp_path / "a").touch()
    for _ in range(2):
        with pytest.raises(ValueError):
            damaged(tmp_path / "a")
    assert len(reads) == 2
    with pytest.raises(FileNotFoundError):
        damaged(tmp_path / "b")
