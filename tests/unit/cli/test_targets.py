"""What the targets must never do."""

from pathlib import Path

import pytest

from pipelines.commands.reset import _remove_empty


def test_reset_removes_folders_that_are_left_empty_but_never_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer may lie right below a home that holds nothing else."""
    home, layer = tmp_path / "home", tmp_path / "layer"
    home.mkdir()
    layer.mkdir()
    (layer / ".lock").touch()
    monkeypatch.setenv("HOME", str(home))
    _remove_empty([layer, home])
    assert home.exists() and not layer.exists()
