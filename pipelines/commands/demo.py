"""`make demo`: fake data through all layers, on the embedded server."""

from typing import TYPE_CHECKING

from conf.settings import Settings
from pipelines.commands.seed import seed
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.run.layers import RunRequest, run_layers
from pipelines.run.summary import show
from pipelines.sources.domains import in_postgres

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def demo(settings: Settings, report: Report, spark: "SparkSession | None" = None) -> None:
    """Seeds the embedded server and runs all layers. Raises UsageFault if the settings name another server."""
    if settings.postgres:
        raise UsageFault(
            f"demo works on fake data, but the settings name {settings.postgres.address}; "
            "take that out of the environment and .env, or run `make bronze silver gold`"
        )
    seed(settings, in_postgres(), report)
    runs, _ = run_layers(settings, RunRequest(domains=in_postgres()), report, spark)
    show(settings, runs, report, lines=3)
    report.say("\nnext: make shell   query silver and gold in PySpark")
    report.say("      make help    all commands")
    report.say("      make reset   delete the fake data before you connect your own PostgreSQL: see README.md")
