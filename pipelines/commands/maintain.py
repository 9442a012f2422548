"""`make maintain`: removes what killed runs left and versions that no kept run names, and makes many small files one.

Nothing is touched that the last run of a layer has, or one that it replaced less than LAKEHOUSE_HISTORY_DAYS before, or
that the layer below was built from. Files are removed first, so that it helps on a full disk.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.core.names import LAYERS
from pipelines.lake import delta, folders, run_log
from pipelines.lake.changes import MANY, SMALL, Target, write
from pipelines.lake.engine import HASHING, engine
from pipelines.lake.run_log import RECORDS
from pipelines.lake.runs import Run
from pipelines.lake.staging import StagedTable, verify
from pipelines.lake.versions import table_version
from pipelines.run.begin import check_layers, next_run
from pipelines.run.commit import commit_run, rolled_back_on_failure

PART = "part-[0-9][0-9][0-9][0-9][0-9]-*.parquet"


# What a process makes for a while is named by its number; see folders.scratch and export.draft.
TEMPORARY = re.compile(r"\.(?:run|export|reconcile|[\w-]+\.(?:csv|parquet))\.(\d+)\..*")


def maintain(settings: Settings, report: Report) -> None:
    """Frees what can be freed and says how much. Raises LockedFault while a run works, StorageFault where the lake is
    damaged; then nothing is removed."""
    with folders.locked(settings):
        for domain in catalogue.domains():
            check_layers(settings, domain)
        for layer in LAYERS:
            path = settings.layer_path(layer)
            report.progress("maintain", layer, 0)
            _free(layer, [*_leftovers(path), *_superseded(settings, layer)], report)
            for name in RECORDS:
                run_log.compact(path / name, MANY)
            for domain in catalogue.domains():
                if run := run_log.last_run(path, domain):
                    run_log.roll_back(path, run)
                    compact(settings, layer, run, report)
        if settings.export_path.exists():
            _free("export", temporary(settings.export_path), report)


def _free(place: str, files: Iterable[Path], report: Report) -> None:
    """Removes the files and folders, and says what that freed."""
    removed, size = 0, 0
    for path in files:
        every = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        with folders.storage(f"file {path}"):
            size += sum(one.stat().st_size for one in every)
            removed += len(every)
            remove(path)
    report.say(f"{place}: {removed:,} file{'' if removed == 1 else 's'}, {size / 1e6:,.1f} MB freed")


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def temporary(folder: Path) -> Iterator[Path]:
    """What processes that are gone made for a while."""
    for path in folder.iterdir():
        if (match := TEMPORARY.fullmatch(path.name)) and folders.is_left(path, int(match[1])):
            yield path


def _leftovers(layer_path: Path) -> Iterator[Path]:
    yield from temporary(layer_path)
    for log in sorted(layer_path.glob(f"*/*/{delta.LOG}")):
        yield from temporary(log.parent)


def _superseded(settings: Settings, layer: str) -> Iterator[Path]:
    """The data files that no kept run names, of the tables that the last runs have. Of others, which
    are not ours, or of which nothing is known, none."""
    path = settings.layer_path(layer)
    for domain in catalogue.domains():
        runs = run_log.read_runs(path, domain=domain)
        kept = _kept(settings, layer, runs)
        for name in (one.name for one in (runs[-1].tables if runs else ())):
            table = path / domain / name
            versions = {one.version for run in kept for one in run.tables if one.name == name}
            named = {file for version in versions for file, _ in delta.actions(table, version)}
            yield from (file for file in table.glob(PART) if file not in named)
    for table in (path / name for name in RECORDS):
        if (head := delta.version(table)) is not None:
            yield from set(table.glob(PART)) - {file for file, _ in delta.actions(table, head)}


def _kept(settings: Settings, layer: str, runs: list[Run]) -> list[Run]:
    """The runs of a domain whose versions stay: the last one, those that were the last one within the days before it,
    what the layer below has read and all since. What the clock says now does not matter."""
    if not runs:
        return []
    since = runs[-1].finished - timedelta(days=settings.history_days)
    after = LAYERS[LAYERS.index(layer) + 1 :][:1]
    below = [run_log.last_run(settings.layer_path(name), runs[-1].domain) for name in after]
    read = min((run.upstream_run for run in below if run and run.upstream_run), default=runs[-1].run)
    replaced = [*(run.finished for run in runs[1:]), None]
    return [run for run, when in zip(runs, replaced, strict=True) if when is None or when >= since or run.run >= read]


def compact(settings: Settings, layer: str, last: Run, report: Report) -> None:
    """Tables of many small files get one instead, as a new run of the same content."""
    path = settings.layer_path(layer)
    many = [
        one.name
        for one in last.tables
        if catalogue.table_of(layer, one.name)
        and sum(size < SMALL for _, size in delta.actions(path / last.domain / one.name, one.version)) >= MANY
    ]
    if not many or last.hashing != HASHING:
        return
    begun = next_run(settings, layer, last.domain, last.lake, last.upstream_run, last.source)
    run = replace(last, run=begun.run, started=begun.started, kind="compaction", content_of=last.content)
    built: dict[str, StagedTable] = {}
    with rolled_back_on_failure(path, last.domain):
        for name in many:
            try:
                built[name] = _rewritten(settings, layer, last, run.run, name)
            except QualityFault as fault:
                report.say(str(fault))
            except BaseException:
                for one in built.values():
                    one.discard()
                raise
        if not built:
            return
        commits = (built[one.name].commit() if one.name in built else one for one in last.tables)
        rules = tuple(replace(rule, run=run.run) for rule in run_log.read_rules(path, last))
        commit_run(path, run, commits, rules)
    report.say(f"{layer}: {', '.join(built)} compacted, {layer}/{run.run} has them")


def _rewritten(settings: Settings, layer: str, last: Run, run: int, name: str) -> StagedTable:
    """The rows of a table that count in one file, proved to be the same."""
    path = settings.layer_path(layer)
    done, table = last.table(name), catalogue.table_of(layer, name)
    assert table is not None
    old, place = table_version(path, last, table, name), Target(table, path / last.domain / name, run)
    with folders.scratch(path, "run") as spill, engine(f"table {place.path}", spill) as db:
        files = write(db, old.sql, place)
    one = StagedTable(replace(done, base=run, batches=0), table, place.path, None, files, (), ())
    built = verify(one, old.types, table.keys, done.rows_out, {})
    if built.done.columns != done.columns:
        built.discard()
        raise QualityFault(
            f"table {place.path}: one file of it would have other values than its {len(old.files)}; left as it was"
        )
    return built
