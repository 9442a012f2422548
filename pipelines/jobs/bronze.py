"""A Spark job that copies the source's tables, by Spark tasks: `spark-submit … pipelines/jobs/bronze.py`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # not this folder, whose files have the names of packages

from pipelines.jobs.submitted import run_job  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_job("bronze"))
