"""The real command line, in processes of its own."""

from pathlib import Path

import pytest

from tests.support.process import Cli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
