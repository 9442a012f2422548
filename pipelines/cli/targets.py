"""What each target of the command line does, and what it shows at its end."""

import os
from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Settings
from pipelines.commands.answers import answers
from pipelines.commands.demo import demo
from pipelines.commands.history import history
from pipelines.commands.maintain import maintain
from pipelines.commands.quality import quality
from pipelines.commands.reset import reset
from pipelines.commands.restore import restore
from pipelines.commands.seed import seed
from pipelines.commands.status import status
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS
from pipelines.export.publish import export
from pipelines.run.layers import run_layers
from pipelines.run.request import RunRequest
from pipelines.run.summary import show
from pipelines.sources.domains import in_postgres, in_use, parse_domains, ready

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run_targets(settings: Settings, targets: set[str], spark: "SparkSession | None" = None) -> None:
    """Runs the targets in the order seed, layers, export, what looks at them, shell, whatever the order typed; in
    `spark`, if given, else in a session of their own."""
    alone = targets & {"demo", "reset", "restore", "stream"}
    if alone and len(targets) > 1:
        raise UsageFault(f"{min(alone)} goes alone")
    domains = parse_domains(os.environ.get("DOMAIN", ""))
    as_json = settings.log_format == "json" and "reset" not in targets  # which asks a person
    if as_json and "answers" in targets:
        raise UsageFault("answers prints rows, which belong into no log; say LAKEHOUSE_LOG_FORMAT=text")
    with Report(as_json=as_json) as report:
        if "reset" in targets:
            reset(settings, report)
        if "demo" in targets:
            demo(settings, report, spark)
        if "seed" in targets:
            seed(settings, domains or in_postgres(), report)
        if layers := targets & set(LAYERS):
            runs, faults = run_layers(settings, RunRequest(layers, domains, full_tables()), report, spark)
            show(settings, runs, report)
            if faults:
                raise faults[0]
        if "export" in targets:
            tables, as_parquet = exported(domains)
            export(settings, tables, report, as_parquet)
        if "status" in targets:
            status(settings, report)
        if "quality" in targets:
            quality(settings, domains or in_use(settings), report)
        if "restore" in targets:
            layer, run = restore(settings, os.environ.get("RUN", ""), report)
            show(settings, [(layer, run)], report)
        if "maintain" in targets:
            maintain(settings, report)
        if "history" in targets:
            history(settings, report)
        if "answers" in targets:
            answers(settings, domains or in_use(settings), report)
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
    full, some = os.environ.get("FULL", ""), os.environ.get("TABLES", "").replace(",", " ").split()
    names = {table.name for layer in LAYERS for table in catalogue.tables(layer)}
    if full not in ("", "0", "1"):
        raise UsageFault(f"FULL is {full}; say FULL=1 to build tables whole")
    if unknown := sorted(set(some) - names):
        raise UsageFault(f"TABLES names {', '.join(unknown)}; there are {', '.join(sorted(names))}")
    if some and full != "1":
        raise UsageFault(f"TABLES={','.join(some)} says which tables FULL=1 builds whole; say FULL=1, too")
    return frozenset(some or names) if full == "1" else frozenset()


def streamed(domains: tuple[str, ...]) -> tuple[str, bool]:
    """The domain whose files `make stream` takes, and whether ONCE says to end when there is none left. Raises
    UsageFault."""
    once, known = os.environ.get("ONCE", ""), [name for name in catalogue.domains() if catalogue.is_of_files(name)]
    if len(domains) != 1 or domains[0] not in known:
        raise UsageFault(f"say which files to watch: make stream DOMAIN={known[0]}; there are {', '.join(known)}")
    if once not in ("", "0", "1"):
        raise UsageFault(f"ONCE is {once}; say ONCE=1 to end when all files are taken")
    return domains[0], once == "1"


def exported(domains: tuple[str, ...]) -> tuple[list[Table], bool]:
    """The tables that `make export` writes, those of DOMAIN or TABLES, or those that runs export; and whether as
    Parquet, which FORMAT says. Raises UsageFault."""
    some, kind = os.environ.get("TABLES", "").replace(",", " ").split(), os.environ.get("FORMAT", "csv")
    if kind not in ("csv", "parquet"):
        raise UsageFault(f"FORMAT is {kind}; say FORMAT=csv or FORMAT=parquet")
    tables = [table for domain in domains or catalogue.domains() for table in catalogue.tables_of("gold", domain)]
    if unknown := sorted(set(some) - {table.name for table in tables}):
        raise UsageFault(f"TABLES names {', '.join(unknown)}; gold has {', '.join(table.name for table in tables)}")
    return [one for one in tables if (one.name in some if some else domains or one.csv)], kind == "parquet"
