"""A domain whose tables cannot be imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conf.settings import PROJECT
from tests.support.process import clean_environment


@pytest.mark.parametrize(
    ("file", "message"),
    [("agua/x.py", "agua has no __init__.py"), ("condominio/x.py", "x cannot be imported: NameError")],
)
def test_a_table_that_cannot_be_found_or_imported_is_named(tmp_path: Path, file: str, message: str) -> None:
    for package in ("conf", "bronze", "silver", "gold", "pipelines"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "silver" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "silver" / file).write_text("TABLE = Table()\n")
    for beside in (".#conta.py", "._conta.py", "conta.old.py"):  # of an editor, of a Mac, of a person
        (tmp_path / "silver/cartoes" / beside).write_text("not Python")
    env = clean_environment(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pipelines", "bronze"]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and message in result.stderr, result.stderr
