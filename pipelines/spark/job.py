"""What a run of silver or gold works with, the same for each of its tables."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.lake.runs import Run, RunContext

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, kw_only=True)
class Job(RunContext):
    """A run of silver or gold in one domain.

    `upstream` is the run of the layer below that it reads. `origin` is the one that `previous` was built from, None if
    its files are gone. `session` starts Spark when it is first called. `scratch` is a folder that lasts as long as the
    tables are being built.
    """

    settings: Settings
    upstream: Run
    origin: Run | None
    session: "Callable[[], SparkSession]"
    report: Report
    scratch: Path
