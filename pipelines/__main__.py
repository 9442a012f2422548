"""`python -m pipelines <target>...`, or the script `lakehouse` at the project's root: see `pipelines/cli/main.py`."""

import os
import sys

from pipelines.cli.completion import ASKED, answer
from pipelines.cli.words import GROUP, PROGRAM

if __name__ == "__main__":
    program = os.environ.pop("_LAKEHOUSE_PROGRAM", PROGRAM)
    if asked := os.environ.get(ASKED):
        sys.exit(answer(GROUP, asked))
    from pipelines.cli.main import run_command

    sys.exit(run_command(sys.argv[1:], program=program))
