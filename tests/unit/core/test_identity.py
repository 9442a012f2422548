"""Who we are: a fingerprint of all that decides what a table holds."""

from pathlib import Path

import pytest

from conf.settings import PROJECT
from pipelines.core import identity

SOURCES = (
    *("requirements/run.txt", "requirements/jars.sha256", "conf/contract.py", "pipelines/lake/delta.py"),
    *(
        "pipelines/sources/postgres/relation.sql",
        "silver/columns.py",
        "silver/cartoes/conta.py",
        "gold/varejo/venda.py",
    ),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one file of each kind."""
    for name in SOURCES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it is")
    monkeypatch.setattr(identity, "PROJECT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", [name for name in SOURCES if "varejo" not in name])
def test_the_fingerprint_changes_with_every_file_that_decides_what_a_table_holds(project: Path, name: str) -> None:
    before = identity.software.__wrapped__("cartoes")
    (project / name).write_text("changed")
    assert identity.software.__wrapped__("cartoes") != before


def test_the_fingerprint_does_not_change_with_another_domain(project: Path) -> None:
    before = identity.software.__wrapped__("cartoes")
    (project / "gold/varejo/venda.py").write_text("changed")
    assert identity.software.__wrapped__("cartoes") == before


def test_images_get_sql_files_with_their_modules() -> None:
    """Whole folders are copied; only compiled Python is left out."""
    lines = (PROJECT / ".dockerignore").read_text("utf-8").splitlines()
    assert "!pipelines" in lines
    assert [line for line in lines if not line.startswith(("#", "!"))] == ["*", "**/__pycache__"]
    assert "COPY . ." in (PROJECT / "Dockerfile").read_text("utf-8")
