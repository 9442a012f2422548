"""What each target of the command line runs, and what it shows at the end."""

import os
from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Settings
from pipelines.commands import history, maintain, seed, status
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS
from pipelines.export.publish import export
from pipelines.run.layers import RunRequest, run_layers
from pipelines.run.summary import show
from pipelines.sources.domains import in_postgres, in_use, parse_domains, ready

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run_targets(settings: Settings, targets: set[str], spark: "SparkSession | None" = None) -> None:
    """Runs targets in the order seed, layers, export, what shows them, shell; in `spark` or a session of its own."""
    alone = targets & {"demo", "reset", "restore", "stream"}
    if alone and len(targets) > 1:
        raise UsageFault(f"{min(alone)} runs alone: name no other target")
    domains = parse_domains(os.environ.get("DOMAIN", ""))
    as_json = settings.log_format == "json" and "reset" not in targets  # which asks a person
    if as_json and "answers" in targets:
        raise UsageFault("answers prints rows, which do not belong in a log; say LAKEHOUSE_LOG_FORMAT=text")
    with Report(as_json=as_json) as report:
        if "reset" in targets:
            maintain.reset(settings, report)
        if "demo" in targets:
            seed.demo(settings, report, spark)
        if "seed" in targets:
            seed.seed(settings, domains or in_postgres(), report)
        if layers := targets & set(LAYERS):
            runs, faults = run_layers(settings, RunRequest(layers, domains, full_tables()), report, spark)
            show(settings, runs, report)
            if faults:
                raise faults[0]
        if "export" in targets:
            tables, as_parquet = exported(domains)
            export(settings, tables, report, as_parquet)
        if "status" in targets:
            status.status(settings, report)
        if "quality" in targets:
            status.quality(settings, domains or in_use(settings), report)
        if "restore" in targets:
            layer, run = history.restore(settings, os.environ.get("RUN", ""), report)
            show(settings, [(layer, run)], report)
        if "maintain" in targets:
            maintain.maintain(settings, report)
        if "history" in targets:
            history.history(settings, report)
        if "answers" in targets:
            status.answers(settings, domains or in_use(settings), report)
        if "plan" in targets:
            from pipelines.commands.plan import plan

            plan(settings, domains or ready(settings, "bronze", report), full_tables(), report)
        if "reconcile" in targets:
            from pipelines.commands.reconcile.reconcile import reconcile

            reconcile(settings, domains or in_use(settings), report, spark)
        if "stream" in targets:
            from pipelines.commands.stream import stream

            stream(settings, *streamed(domains), report, spark)
    if "shell" in targets:
        from pipelines.commands.shell import shell

        shell(settings, spark)


def full_tables() -> frozenset[str]:
    """The tables that FULL=1 asks to rebuild in full: all, or those that TABLES names. Raises UsageFault."""
    full, tables = os.environ.get("FULL", ""), _names("TABLES")
    known = {table.name for layer in LAYERS for table in catalogue.tables(layer)}
    if full not in ("", "0", "1"):
        raise UsageFault(f"FULL is {full}; say FULL=1 to rebuild tables in full")
    if unknown := sorted({*tables} - known):
        raise UsageFault(f"TABLES names {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    if tables and full != "1":
        raise UsageFault(f"TABLES={','.join(tables)} says which tables FULL=1 rebuilds in full; say FULL=1, too")
    return frozenset(tables or known) if full == "1" else frozenset()


def streamed(domains: tuple[str, ...]) -> tuple[str, bool]:
    """The domain of `make stream`, and whether ONCE=1 says to end when no file is left. Raises UsageFault."""
    once, known = os.environ.get("ONCE", ""), [name for name in catalogue.domains() if catalogue.is_of_files(name)]
    if len(domains) != 1 or domains[0] not in known:
        raise UsageFault(f"say which files to watch: make stream DOMAIN={known[0]}; there are {', '.join(known)}")
    if once not in ("", "0", "1"):
        raise UsageFault(f"ONCE is {once}; say ONCE=1 to end when all files are ingested")
    return domains[0], once == "1"


def exported(domains: tuple[str, ...]) -> tuple[list[Table], bool]:
    """The tables that `make export` writes, and whether FORMAT says Parquet: the tables that TABLES names, or all of
    DOMAIN, or those that runs export. Raises UsageFault."""
    names, file_format = _names("TABLES"), os.environ.get("FORMAT", "csv")
    if file_format not in ("csv", "parquet"):
        raise UsageFault(f"FORMAT is {file_format}; say FORMAT=csv or FORMAT=parquet")
    tables = [table for domain in domains or catalogue.domains() for table in catalogue.tables_of("gold", domain)]
    if unknown := sorted({*names} - {table.name for table in tables}):
        raise UsageFault(f"TABLES names {', '.join(unknown)}; gold has {', '.join(table.name for table in tables)}")
    if names:
        tables = [table for table in tables if table.name in names]
    elif not domains:
        tables = [table for table in tables if table.csv]
    return tables, file_format == "parquet"


def _names(variable: str) -> list[str]:
    return os.environ.get(variable, "").replace(",", " ").split()
