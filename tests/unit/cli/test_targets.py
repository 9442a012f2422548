"""What the targets must never do."""

from pathlib import Path

import pytest

from pipelines.cli.targets import full_tables
from pipelines.commands.maintain import _remove_empty
from pipelines.core.errors import UsageFault


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


def test_full_and_tables_are_understood_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(full: str, tables: str) -> frozenset[str]:
        monkeypatch.setenv("FULL", full)
        monkeypatch.setenv("TABLES", tables)
        return full_tables()

    assert asked("", "") == asked("0", "") == frozenset()
    assert asked("1", "") > {"associado", "conta", "cartao", "movimento", "movimento_flat"}
    assert asked("1", "conta, movimento") == {"conta", "movimento"}
    for full, tables, message in (
        ("yes", "", "FULL is yes; say FULL=1"),
        ("", "conta", "say FULL=1, too"),
        ("1", "contas", "TABLES names contas; there are"),
    ):
        with pytest.raises(UsageFault, match=message):
            asked(full, tables)
