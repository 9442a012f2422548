"""What the targets must never do."""

from pathlib import Path

import pytest

from pipelines.cli.targets import full_tables
from pipelines.cli.words import Request, parse
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


def test_full_and_tables_are_understood_or_refused() -> None:
    def asked(*words: str) -> frozenset[str]:
        request = parse(["bronze", *words])
        assert isinstance(request, Request)
        return full_tables(request)

    assert asked() == frozenset()
    assert asked("--full") > {"associado", "conta", "cartao", "movimento", "movimento_flat"}
    assert (
        asked("--full", "--table", "conta, movimento")
        == asked("--table=movimento,conta", "--full")
        == {"conta", "movimento"}
    )
    for words, message in (
        (("--table", "conta"), "say --full"),
        (("--full", "--table", "contas"), "is called contas; there are"),
    ):
        with pytest.raises(UsageFault, match=message):
            asked(*words)
