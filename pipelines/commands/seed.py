"""`make seed` fills the sources with fake data; `make demo` does so on the embedded server and runs all layers."""

from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.run.layers import RunRequest, run_layers
from pipelines.run.summary import show
from pipelines.sources.domains import in_postgres, landing_of
from pipelines.sources.postgres.embedded import source_server

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def seed(settings: Settings, domains: tuple[str, ...], confirm: str, report: Report) -> None:
    """Fills the sources of the domains with fake data; on a server of the user's own if `confirm` is its database."""
    for domain in domains:
        tables, landing = catalogue.tables_of("bronze", domain), landing_of(settings, domain)
        if landing:
            from pipelines.seed.files import seed as write

            write(settings, landing, tables, report)
        else:
            _seed_postgres(settings, tables, confirm, report)


def _seed_postgres(settings: Settings, tables: tuple[Table, ...], confirm: str, report: Report) -> None:
    """Fills the embedded server; raises UsageFault for another unless `confirm` names its database."""
    from pipelines.seed.postgres import seed as fill

    if settings.postgres and confirm != settings.postgres.database:
        raise UsageFault(
            f"seed would create fake tables in {settings.postgres.address}; "
            f"to do so, say `make seed CONFIRM={settings.postgres.database}`"
        )
    report.progress("source", "start")
    with source_server(settings) as server:
        report.finished("source", "start")
        fill(settings, server, tables, settings.postgres is None, report)


def demo(settings: Settings, report: Report, spark: "SparkSession | None" = None) -> None:
    """Seeds the embedded server and runs all layers. Raises UsageFault if the settings name another server."""
    if settings.postgres:
        raise UsageFault(
            f"demo works on fake data, but the settings name {settings.postgres.address}; "
            "take that out of the environment and .env, or run `make bronze silver gold`"
        )
    seed(settings, in_postgres(), "", report)
    runs, _ = run_layers(settings, RunRequest(domains=in_postgres()), report, spark)
    show(settings, runs, report, lines=3)
    report.say("", "next: make shell   query silver and gold in PySpark")
    report.say("      make help    all commands")
    report.say("      make reset   delete the fake data, before you use your own PostgreSQL")
