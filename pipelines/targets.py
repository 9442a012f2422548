"""What each target of the command line does, and what it shows at its end."""

import os
import shutil
import sys
from pathlib import Path

from conf.contract import Table
from conf.settings import Settings
from pipelines import catalogue, embedded, lake, records
from pipelines.answers import answers
from pipelines.domains import in_postgres, in_use, landing_of, named, ready
from pipelines.errors import UsageFault
from pipelines.history import history, restore
from pipelines.lake import LAYERS
from pipelines.maintain import maintain, remove, temporary
from pipelines.publish import export
from pipelines.records import Run
from pipelines.report import Report
from pipelines.run import run_layers, source_server
from pipelines.status import quality, status


def run_targets(settings: Settings, targets: set[str]) -> None:
    """Runs the targets in the order seed, layers, export, what looks at them, shell, whatever the order typed."""
    alone = targets & {"demo", "reset", "restore", "stream"}
    if alone and len(targets) > 1:
        raise UsageFault(f"{min(alone)} goes alone")
    domains = named(os.environ.get("DOMAIN", ""))
    as_json = settings.log_format == "json" and "reset" not in targets  # which asks a person
    if as_json and "answers" in targets:
        raise UsageFault("answers prints rows, which belong into no log; say LAKEHOUSE_LOG_FORMAT=text")
    with Report(as_json=as_json) as report:
        if "reset" in targets:
            reset(settings, report)
        if "demo" in targets:
            demo(settings, report)
        if "seed" in targets:
            seed(settings, domains or in_postgres(), report)
        if layers := targets & set(LAYERS):
            runs, faults = run_layers(settings, layers, report, full=full_tables(), only=domains)
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
            from pipelines.plan import plan

            plan(settings, domains or ready(settings, "bronze", report), full_tables(), report)
        if "reconcile" in targets:
            from pipelines.reconcile import reconcile

            reconcile(settings, domains or in_use(settings), report)
        if "stream" in targets:
            from pipelines.stream import stream

            stream(settings, *streamed(domains), report)
    if "shell" in targets:
        from pipelines.shell import shell

        shell(settings)


def full_tables() -> frozenset[str]:
    """The tables that FULL=1 asks to be built whole: all, or those that TABLES names. Raises UsageFault."""
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
    tables = [table for domain in domains or catalogue.domains() for table in catalogue.of("gold", domain)]
    if unknown := sorted(set(some) - {table.name for table in tables}):
        raise UsageFault(f"TABLES names {', '.join(unknown)}; gold has {', '.join(table.name for table in tables)}")
    return [one for one in tables if (one.name in some if some else domains or one.csv)], kind == "parquet"


def seed(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Fills the sources of some domains with fake data."""
    for domain in domains:
        tables, landing = catalogue.of("bronze", domain), landing_of(settings, domain)
        if landing:
            from pipelines.seed_files import seed as write

            write(settings, landing, tables, report)
        else:
            _seed_postgres(settings, tables, report)


def _seed_postgres(settings: Settings, tables: tuple[Table, ...], report: Report) -> None:
    """Another server than the embedded one only when CONFIRM names its database."""
    from pipelines.seed import seed as fill

    if settings.postgres and os.environ.get("CONFIRM") != settings.postgres.database:
        raise UsageFault(
            f"seed would create fake tables in {settings.postgres.address}; "
            f"if that is meant, say `make seed CONFIRM={settings.postgres.database}`"
        )
    with source_server(settings) as server:
        fill(settings, server, tables, settings.postgres is None, report)


def demo(settings: Settings, report: Report) -> None:
    """Fake data through all layers, on the embedded server."""
    if settings.postgres:
        raise UsageFault(
            f"demo works on fake data, but the settings name {settings.postgres.address}; "
            "take that out of the environment and .env, or run `make bronze silver gold`"
        )
    seed(settings, in_postgres(), report)
    runs, _ = run_layers(settings, set(LAYERS), report, only=in_postgres())
    show(settings, runs, report, lines=3)
    report.say("\nnext: make shell   ask silver and gold in PySpark")
    report.say("      make help    all commands")
    report.say("      make reset   delete the fake data, before your own PostgreSQL: see README.md")


def show(settings: Settings, runs: list[tuple[str, Run]], report: Report, lines: int = 0) -> None:
    """The table of the runs and, of gold, the CSV: path, size and, where the people in it are fake, first lines."""
    if not runs:
        return
    report.summary(runs)
    built = [run.domain for layer, run in runs if layer == "gold"]
    for table in (table for table in catalogue.tables("gold") if table.csv and table.domain in built):
        path = lake.csv_path(settings, table)
        here = Path.cwd()
        shown = path.relative_to(here) if path.is_relative_to(here) else path
        report.say(f"\n{shown} ({path.stat().st_size:,} bytes)")
        with path.open(encoding="utf-8", newline="") as file:
            for line, _ in zip(file, range(lines), strict=False):
                report.sample("  " + line.rstrip("\n"))


def reset(settings: Settings, report: Report) -> None:
    """Deletes what the pipeline made, after asking: each layer, the CSVs, the embedded server's data."""
    layers = [settings.layer_path(layer) for layer in LAYERS if settings.layer_path(layer).exists()]
    tables = [path / domain for path in map(settings.layer_path, LAYERS) for domain in catalogue.domains()]
    ours = [
        path for path in (*tables, *(layer / name for layer in layers for name in records.RECORDS)) if path.exists()
    ]
    exports = [lake.csv_path(settings, table) for table in catalogue.tables("gold")]
    files = [file for path in exports for file in (path, path.with_suffix(".parquet")) if file.exists()]
    files += [path for folder in (*layers, settings.export_path) if folder.exists() for path in temporary(folder)]
    data = [embedded.home()] if embedded.home().exists() else []
    if not (ours or files or data):
        report.say("nothing to delete")
        return
    report.say("this deletes:")
    for path in (*ours, *files, *data):
        report.say(f"  {path}")
    print("type yes to go on: ", end="", flush=True)
    answer = sys.stdin.readline().strip()
    if answer != "yes":
        report.say(f"{'' if answer else chr(10)}nothing was deleted")
        return
    with lake.locked(settings):
        for path in ours:
            with lake.storage(f"{path}"):
                shutil.rmtree(path)
        for path in files:
            remove(path)
        embedded.remove()
    _remove_empty([*layers, settings.export_path, *{layer.parent for layer in layers}])
    report.say("deleted")


def _remove_empty(folders: list[Path]) -> None:
    """Folders in which only our locks are left go, too; never the home or the working directory."""
    for folder in folders:
        if (
            folder.exists()
            and folder not in (Path.home(), Path.cwd())
            and {path.name for path in folder.iterdir()} <= {lake.LOCK, lake.CSV_LOCK}
        ):
            shutil.rmtree(folder)
