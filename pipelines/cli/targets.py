"""What each target of the command line runs, and what it shows at the end."""

from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Settings
from pipelines.cli.words import Request
from pipelines.commands import doctor, history, maintain, seed, status
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS
from pipelines.export.publish import export
from pipelines.run.layers import RunRequest, run_layers
from pipelines.run.summary import show
from pipelines.sources.domains import in_postgres, in_use, known_domains, ready

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


LACKS = 2  # the exit code of `doctor` when something lacks
WORK = 10  # the exit code of `plan --exit-code` when there is work


def run_targets(settings: Settings, request: Request, spark: "SparkSession | None" = None) -> int:
    """Runs targets in the order seed, layers, export, what shows them, shell; in `spark` or a session of its own.
    Returns the exit code: WORK if a plan has some and was asked to say so, LACKS if the doctor found something."""
    targets, code = request.targets, 0
    alone = targets & {"demo", "reset", "restore", "stream"}
    if alone and len(targets) > 1:
        raise UsageFault(f"{min(alone)} runs alone: name no other target")
    domains = known_domains(request.domain)
    as_json = settings.log_format == "json" and "reset" not in targets  # which asks a person
    if as_json and "answers" in targets:
        raise UsageFault("answers prints rows, which do not belong in a log; say LAKEHOUSE_LOG_FORMAT=text")
    with Report(as_json=as_json) as report:
        if "reset" in targets:
            maintain.reset(settings, report)
        if "demo" in targets:
            seed.demo(settings, report, spark)
        if "seed" in targets:
            seed.seed(settings, domains or in_postgres(), request.confirm, report)
        if layers := targets & set(LAYERS):
            if request.replace and not ("bronze" in layers and len(domains) == 1 and catalogue.is_of_files(domains[0])):
                raise UsageFault("--replace (REPLACE=) is for a file of one domain, and for bronze: name both")
            wanted = RunRequest(layers, domains, full_tables(request), replace=request.replace)
            runs, faults = run_layers(settings, wanted, report, spark)
            show(settings, runs, report)
            if faults:
                raise faults[0]
        if "export" in targets:
            tables = exported(domains, request.table)
            export(settings, tables, report, request.format == "parquet")
        if "status" in targets:
            status.status(settings, report)
        if "quality" in targets:
            status.quality(settings, domains or in_use(settings), report)
        if "restore" in targets:
            layer, run = history.restore(settings, request.run, report)
            show(settings, [(layer, run)], report)
        if "maintain" in targets:
            maintain.maintain(settings, report)
        if "history" in targets:
            history.history(settings, report)
        if "answers" in targets:
            status.answers(settings, domains or in_use(settings), report)
        if "doctor" in targets:
            code = code if doctor.doctor(settings, report) else LACKS
        if "plan" in targets:
            from pipelines.commands.plan import plan

            if plan(settings, domains or ready(settings, "bronze", report), full_tables(request), report):
                code = code or WORK * request.exit_code
        if "reconcile" in targets:
            from pipelines.commands.reconcile.reconcile import reconcile

            reconcile(settings, domains or in_use(settings), report, spark)
        if "stream" in targets:
            from pipelines.commands.stream import stream

            stream(settings, streamed(domains), request.once, report, spark)
        if "catalog" in targets:
            from pipelines.commands.catalog import catalog

            catalog(settings, report, spark)
    if "shell" in targets:
        from pipelines.commands.shell import shell

        shell(settings, spark)
    return code


def full_tables(request: Request) -> frozenset[str]:
    """The tables that --full asks to rebuild in full: all, or those that --table names. Raises UsageFault."""
    known = {table.name for layer in LAYERS for table in catalogue.tables(layer)}
    if unknown := sorted({*request.table} - known):
        raise UsageFault(f"no table is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    if request.table and not request.full:
        names = ",".join(request.table)
        raise UsageFault(f"--table {names} (TABLES={names}) is only for a rebuild in full; say --full (FULL=1), too")
    return frozenset(request.table or known) if request.full else frozenset()


def streamed(domains: tuple[str, ...]) -> str:
    """The domain whose files a stream watches. Raises UsageFault unless exactly one is named."""
    known = [name for name in catalogue.domains() if catalogue.is_of_files(name)]
    if len(domains) != 1 or domains[0] not in known:
        raise UsageFault(f"say which files to watch: make stream DOMAIN={known[0]}; there are {', '.join(known)}")
    return domains[0]


def exported(domains: tuple[str, ...], names: tuple[str, ...]) -> list[Table]:
    """The tables to export: those that are named, all of `domains`, or those that runs export. Raises UsageFault."""
    tables = [table for domain in domains or catalogue.domains() for table in catalogue.tables_of("gold", domain)]
    if unknown := sorted({*names} - {table.name for table in tables}):
        known = ", ".join(table.name for table in tables)
        raise UsageFault(f"no table of gold is called {', '.join(unknown)}; there are {known}")
    if names:
        return [table for table in tables if table.name in names]
    return tables if domains else [table for table in tables if table.csv]
