"""The business domains: where the data of each comes from, and which of them a call is about."""

from pathlib import Path

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.names import EMBEDDED, LAYERS, upstream_layer
from pipelines.lake import run_log
from pipelines.sources.postgres import embedded


def landing_of(settings: Settings, domain: str) -> Path | None:
    """The landing folder of a domain; None if its source is PostgreSQL."""
    return settings.landing_path / domain if catalogue.is_of_files(domain) else None


def address(settings: Settings, domain: str) -> str:
    """The source of a domain, as messages and `_runs` name it."""
    if place := landing_of(settings, domain):
        return str(place)
    return settings.postgres.address if settings.postgres else EMBEDDED


def is_there(settings: Settings, domain: str) -> bool:
    """Whether a domain has a source: its landing folder, a PostgreSQL that the settings name, or a seeded one."""
    place = landing_of(settings, domain)
    return place.is_dir() if place else bool(settings.postgres) or embedded.home().exists()


def known_domains(names: tuple[str, ...]) -> tuple[str, ...]:
    """The domains of these names, in the project's order. Raises UsageFault if there is none of a name."""
    known = catalogue.domains()
    if unknown := sorted({*names} - {*known}):
        raise UsageFault(f"no domain is called {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(domain for domain in known if domain in names)


def in_use(settings: Settings) -> tuple[str, ...]:
    """The domains that have a source or a run; if there is none, those of PostgreSQL: the fault that follows says how
    to begin."""
    runs = {run.domain for layer in LAYERS for run in run_log.heads(settings.layer_path(layer))}
    used = tuple(domain for domain in catalogue.domains() if domain in runs or is_there(settings, domain))
    return used or in_postgres()


def in_postgres() -> tuple[str, ...]:
    """The domains whose source is PostgreSQL."""
    return tuple(domain for domain in catalogue.domains() if not catalogue.is_of_files(domain))


def ready(settings: Settings, layer: str, report: Report) -> tuple[str, ...]:
    """The domains that a run which begins with `layer` can build: their source, or their upstream layer, is there. All
    that are in use if there is none: the fault that follows says what is missing."""
    used = in_use(settings)
    if layer == "bronze":
        buildable = tuple(domain for domain in used if is_there(settings, domain))
        for domain in (domain for domain in used if buildable and domain not in buildable):
            report.warning(f"{domain} was left out: its source, {address(settings, domain)}, is not there")
    else:
        upstream = settings.layer_path(upstream_layer(layer))
        buildable = tuple(domain for domain in used if run_log.last_run(upstream, domain))
    return buildable or used
