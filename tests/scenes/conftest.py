"""In a scene the command line runs in this process; tests/process has it in processes of its own."""

import pytest

from tests.support.here import CliHere


@pytest.fixture
def cli(cli_here: CliHere) -> CliHere:
    return cli_here
