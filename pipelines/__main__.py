"""`python -m pipelines <target>...`: see `pipelines/cli/main.py`."""

import sys

from pipelines.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command(sys.argv[1:]))
