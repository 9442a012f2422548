"""`make maintain` removes leftovers of killed runs and versions that no kept run needs (ADR 14), and combines small
files. It removes first, so that it helps on a full disk. `make reset` deletes everything."""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.core.names import LAYERS, downstream_layer
from pipelines.core.points import Point, crash_point
from pipelines.lake import delta, folders, layout, run_log
from pipelines.lake.changes import Target, merged
from pipelines.lake.engine import HASHING, engine
from pipelines.lake.run_log import RECORDS
from pipelines.lake.runs import Run, TableRun
from pipelines.lake.versions import StagedTable, table_version
from pipelines.run.lifecycle import check_layers, commit_run, next_run, rolled_back_on_failure
from pipelines.sources.postgres import embedded

# Temporary files are named by the number of their process; see folders.scratch and folders.beside.
TEMPORARY = re.compile(r"\.(?:run|export|reconcile|[\w-]+\.(?:csv|parquet))\.(\d+)\..*")


def maintain(settings: Settings, report: Report) -> None:
    """Frees what no kept run needs and reports how much. Raises LockedFault while a run works, StorageFault if the lake
    is damaged; then nothing is removed."""
    with run_log.locked(settings):
        for domain in catalogue.domains():
            check_layers(settings, domain)
        for layer in LAYERS:
            path = settings.layer_path(layer)
            report.progress("maintain", layer)
            tables = sorted(log.parent for log in path.glob(f"*/*/{delta.LOG}"))
            left = [file for folder in (path, *tables) for file in temporary(folder)]
            _free(layer, [*left, *_superseded(settings, layer)], report)
            for domain in catalogue.domains():
                run_log.roll_back(path, domain, report)
            for name in RECORDS:
                run_log.compact(path / name, layout.MANY_SMALL_FILES)
            for domain in catalogue.domains():
                if run := run_log.last_run(path, domain):
                    compact(settings, layer, run, report)
        if settings.export_path.exists():
            _free("export", temporary(settings.export_path), report)
        temp = Path(tempfile.gettempdir())
        if left := [*folders.left(temp, folders.TEMPORARY)]:
            _free(f"temporary files in {temp}", left, report)


def _free(place: str, files: Iterable[Path], report: Report) -> None:
    removed, size = 0, 0
    for path in files:
        # A run of another lake may remove the same temporary folder now.
        with folders.storage(f"file {path}"), suppress(FileNotFoundError):
            within = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
            freed = sum(file.stat().st_size for file in within)
            remove(path)
            removed, size = removed + len(within), size + freed
            crash_point(Point.FILE_REMOVED)
    report.say(f"{place}: {removed:,} file{'' if removed == 1 else 's'}, {size / 1e6:,.1f} MB freed")


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def temporary(folder: Path) -> Iterator[Path]:
    """The temporary files and folders of processes that are gone."""
    for path in folder.iterdir():
        if (match := TEMPORARY.fullmatch(path.name)) and folders.is_left(path, int(match[1])):
            yield path


def _superseded(settings: Settings, layer: str) -> Iterator[Path]:
    """The data files that no kept run needs, of the tables that the last runs have. Other folders may not be ours, or
    nothing is known of them: their files stay."""
    path = settings.layer_path(layer)
    for domain in catalogue.domains():
        runs = run_log.read_runs(path, domain=domain)
        kept = _kept(settings, layer, runs)
        for name in (table_run.name for table_run in (runs[-1].tables if runs else ())):
            table = path / domain / name
            versions = {table_run.version for run in kept for table_run in run.tables if table_run.name == name}
            needed = {file for version in versions for file in delta.files_of(table, version)}
            needed |= delta.added_since(table, min(versions, default=0))
            files = (*table.glob(delta.PARTS), *table.glob(f"{delta.FEED}/*"))
            yield from (file for file in files if str(file.relative_to(table)) not in needed)
    for table in (path / name for name in RECORDS):
        if (head := delta.version(table)) is not None:
            needed = {*delta.files_of(table, head)}
            yield from (file for file in table.glob(delta.PARTS) if file.name not in needed)


def _kept(settings: Settings, layer: str, runs: list[Run]) -> list[Run]:
    """The runs of a domain whose versions stay: the last run, those that were the last within LAKEHOUSE_HISTORY_DAYS
    before it, and the run that the downstream layer has read with all since. The current time does not matter."""
    if not runs:
        return []
    since = runs[-1].finished - timedelta(days=settings.history_days)
    downstream = downstream_layer(layer)
    reader = run_log.last_run(settings.layer_path(downstream), runs[-1].domain) if downstream else None
    read = reader.upstream_run if reader and reader.upstream_run else runs[-1].run
    replaced = [*(run.finished for run in runs[1:]), None]
    return [run for run, when in zip(runs, replaced, strict=True) if when is None or when >= since or run.run >= read]


def compact(settings: Settings, layer: str, last: Run, report: Report) -> None:
    """Merges small files of tables that have many, as a new run with the same content."""
    path = settings.layer_path(layer)
    many = [
        table_run.name
        for table_run in last.tables
        if catalogue.table_of(layer, last.domain, table_run.name)
        and not table_run.batches
        and _small_files(path / last.domain, table_run) >= layout.MANY_SMALL_FILES
    ]
    if not many or last.hashing != HASHING:
        return
    begun = next_run(settings, layer, last.domain)
    run = replace(last, run=begun.run, started=begun.started, kind="compaction", content_of=last.built_in)
    built: dict[str, StagedTable] = {}
    with rolled_back_on_failure(path, run):
        for name in many:
            try:
                staged = _merged(settings, layer, last, run.run, name)
                built |= {name: staged} if staged.files else {}
            except QualityFault as fault:
                report.say(str(fault))
                delta.sweep(path / last.domain / name, run.run)
        if not built:
            return
        commits = (built[old.name].commit(run.run, True) if old.name in built else old for old in last.tables)
        commit_run(path, run, commits, rules=run_log.read_rules(path, last))
    report.say(f"{layer}: {', '.join(built)} compacted, as {layer}/{run.run}")


def _small_files(folder: Path, table_run: TableRun) -> int:
    files = delta.files_of(folder / table_run.name, table_run.version)
    return sum(size < layout.SMALL_FILE_BYTES for size in files.values())


def _merged(settings: Settings, layer: str, last: Run, run: int, name: str) -> StagedTable:
    """Stages the rows of a table in fewer files, proved to be the same rows. Raises QualityFault."""
    path, table = settings.layer_path(layer), catalogue.table_of(layer, last.domain, name)
    assert table is not None
    target = Target(table, path / last.domain / name, run)
    with folders.scratch(path, "run") as spill, engine(f"table {target.path}", spill) as db:
        return merged(db, table_version(path, last, table, name), last.table(name), target)


def reset(settings: Settings, report: Report) -> None:
    """Deletes each layer, the catalogue, the CSVs and the embedded server's data, after asking."""
    layers = [settings.layer_path(layer) for layer in LAYERS if settings.layer_path(layer).exists()]
    tables = [path / domain for path in map(settings.layer_path, LAYERS) for domain in catalogue.domains()]
    ours = [path for path in (*tables, *(layer / name for layer in layers for name in RECORDS)) if path.exists()]
    ours += [settings.catalog_path] if folders.is_catalogue(settings.catalog_path) else []
    exports = [folders.csv_path(settings, table) for table in catalogue.tables("gold")]
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
        report.say(*("",) * (not answer), "nothing was deleted")
        return
    with folders.locked(settings):
        for path in ours:
            with folders.storage(f"{path}"):
                shutil.rmtree(path)
        for path in files:
            remove(path)
        embedded.remove()
    _remove_empty([*layers, settings.export_path, *{layer.parent for layer in layers}])
    report.say("deleted")


def _remove_empty(candidates: list[Path]) -> None:
    """Removes folders in which only our locks are left, except the home and the working directory."""
    for folder in candidates:
        if (
            folder.exists()
            and folder not in (Path.home(), Path.cwd())
            and {path.name for path in folder.iterdir()} <= {folders.LOCK, folders.CSV_LOCK}
        ):
            shutil.rmtree(folder)
