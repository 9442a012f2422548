"""What `maintain` frees while others do the same."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.commands import maintain
from pipelines.core.console import Report


def test_what_another_process_removes_meanwhile_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("before", "meanwhile", "ours")]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_text("x" * 10)
    rmtree = shutil.rmtree

    def left() -> Iterator[Path]:
        for folder in folders:
            if folder.name == "before":
                rmtree(folder)
            yield folder

    def removed(folder: Path) -> None:
        rmtree(folder)
        if folder.name == "meanwhile":
            raise FileNotFoundError(folder)

    monkeypatch.setattr(shutil, "rmtree", removed)
    with Report() as report:
        maintain._free("temporary files", left(), report)
    assert "temporary files: 1 file, 0.0 MB freed" in capsys.readouterr().out
    assert not any(folder.exists() for folder in folders)
