"""`make seed`: fills the sources with fake data."""

import os

from conf.contract import Table
from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.sources.domains import landing_of
from pipelines.sources.postgres.embedded import source_server


def seed(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Fills the sources of the domains with fake data."""
    for domain in domains:
        tables, landing = catalogue.tables_of("bronze", domain), landing_of(settings, domain)
        if landing:
            from pipelines.seed.files import seed as write

            write(settings, landing, tables, report)
        else:
            _seed_postgres(settings, tables, report)


def _seed_postgres(settings: Settings, tables: tuple[Table, ...], report: Report) -> None:
    """Fills the embedded server; raises UsageFault for another unless CONFIRM names its database."""
    from pipelines.seed.postgres import seed as fill

    if settings.postgres and os.environ.get("CONFIRM") != settings.postgres.database:
        raise UsageFault(
            f"seed would create fake tables in {settings.postgres.address}; "
            f"to do so, say `make seed CONFIRM={settings.postgres.database}`"
        )
    with source_server(settings) as server:
        fill(settings, server, tables, settings.postgres is None, report)
