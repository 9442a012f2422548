"""The run log: `_runs`, the commit point; `_quality`, how each rule fared; `_files`, which files were ingested.

A run is complete when its row is in `_runs`; readers take the versions that the last row names.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import Schema
from pydantic import TypeAdapter

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault, StorageFault, UsageFault
from pipelines.core.names import LAYERS
from pipelines.core.points import Point, crash_point
from pipelines.lake import commits, delta, folders
from pipelines.lake.folders import read_once, storage
from pipelines.lake.runs import IngestedFile, Mode, RuleRun, Run

RECORDS = RUNS, QUALITY, FILES = "_runs", "_quality", "_files"

# The format of the records, and the property of the three tables that has it. It rises with each change of the records;
# lakes from before it was recorded have none. ADR 31 says what such a change takes.
FORMAT, FORMAT_PROPERTY = 3, "lakehouse.format"

COMMENTS = {
    RUNS: "Complete runs. One row per run and domain.",
    QUALITY: "Rules of the runs. One row per run, table and rule.",
    FILES: "Files that runs took. One row per run and file.",
}

SMALL_BYTES, MANY_SMALL_FILES = 2**20, 8  # so many files of a table, each smaller than that, become one

ARROW = {int: pa.int64(), float: pa.float64(), datetime: pa.timestamp("us", tz="UTC")}


def _arrow_type(kind: Any) -> pa.DataType:
    """The Arrow type of a field's annotation; a choice of texts is a text."""
    if is_dataclass(kind):
        return pa.struct(_schema(kind))
    if get_origin(kind) is tuple:
        return pa.list_(_arrow_type(get_args(kind)[0]))
    return ARROW.get(get_args(kind)[0] if isinstance(kind, UnionType) else kind, pa.string())


def _schema(record: Any) -> pa.Schema:
    """The columns in which a record's fields are stored."""
    return pa.schema([(name, _arrow_type(kind)) for name, kind in get_type_hints(record).items()])


RUN, RULE_RUN, INGESTED_FILE = _schema(Run), _schema(RuleRun), _schema(IngestedFile)

# Make records of rows.
A_RUN, RULE_RUNS, INGESTED_FILES = TypeAdapter(Run), TypeAdapter(list[RuleRun]), TypeAdapter(list[IngestedFile])


def _run(row: dict[str, Any]) -> Run:
    # Older software recorded one CSV for a run: it is that of the domain's table that has one. Lakes of its time keep
    # the column, which stays null from now on; others do not get it.
    csv_sha256 = row.pop("csv_sha256", None)
    gold = catalogue.tables_of("gold", row["domain"]) if csv_sha256 else ()
    with_csv = {table.name for table in gold if table.csv}
    for table in row["tables"]:
        table.setdefault("mode", _mode_of(table.get("how", "")))
        if table["name"] in with_csv:
            table["csv_sha256"] = csv_sha256
    return A_RUN.validate_python({"upstream_run": None} | row)


def _mode_of(how: str) -> Mode:
    """What a record without a mode, of older software, says in words; the oldest built all tables and say nothing."""
    if not how or how.startswith("whole"):
        return Mode.FULL
    return Mode.UNCHANGED if how == "unchanged" else Mode.CHANGED


class Head(NamedTuple):
    """What tells runs apart: number, domain, lake, the upstream run, the run whose content it has; and where its rules
    and files are."""

    run: int
    domain: str
    lake: str
    upstream_run: int | None = None
    content_of: int | None = None
    quality_version: int | None = None
    files_version: int | None = None


def heads(layer_path: Path) -> list[Head]:
    """The complete runs of a layer, oldest first, without what they did."""
    return sorted(Head(**row) for row in read_rows(layer_path / RUNS, {}, Head._fields))


def read_runs(layer_path: Path, **where: int | str) -> list[Run]:
    """The complete runs of a layer, oldest first: all, or of one `domain`, or the one of a number `run`."""
    return sorted(map(_run, read_rows(layer_path / RUNS, where)), key=lambda run: run.run)


def last_run(layer_path: Path, domain: str) -> Run | None:
    """The last complete run of a domain."""
    last = max((head.run for head in heads(layer_path) if head.domain == domain), default=None)
    return None if last is None else read_runs(layer_path, run=last, domain=domain)[0]


def complete_run(settings: Settings, layer: str, domain: str) -> Run:
    """The last complete run of a layer. Raises QualityFault when there is none."""
    if run := last_run(settings.layer_path(layer), domain):
        return run
    raise no_complete_run(settings, layer, domain)


def upstream_of(layer_path: Path, run: Run | None) -> Run | None:
    """The upstream run, in `layer_path`, that a run was built from; None when it is not there."""
    if run is None or run.upstream_run is None:
        return None
    runs = read_runs(layer_path, run=run.upstream_run, domain=run.domain)
    return next((upstream for upstream in runs if upstream.lake == run.lake), None)


def no_complete_run(settings: Settings, layer: str, domain: str = "") -> QualityFault:
    """The fault that says which layer to run first."""
    whose = f" of {domain}" * bool(domain)
    return QualityFault(f"{layer} has no complete run{whose} in {settings.layer_path(layer)}; run `make {layer}` first")


def read_rules(layer_path: Path, run: Run) -> list[RuleRun]:
    """How the rules fared in a run, as the run wrote them."""
    return RULE_RUNS.validate_python(read_rows(layer_path / QUALITY, {"run": run.run, "domain": run.domain}))


def read_files(layer_path: Path, domain: str, every: bool = False) -> list[IngestedFile]:
    """The files whose rows the last complete run of a domain has, in the order in which they were ingested; or `every`
    one that a complete run took, those that a restore forgot, too."""
    has, last = set[int](), float("inf")
    for run in reversed([run for run in heads(layer_path) if run.domain == domain]):
        if every or (run.run <= last and run.content_of is None):
            has.add(run.run)
        elif run.run <= last:  # it knows nothing of what came after the run that it brings back
            last = run.content_of or 0
    rows = [row for row in read_rows(layer_path / FILES, {"domain": domain}) if row["run"] in has]
    lines: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: int(row["run"])):
        row.setdefault("first", 1 + lines[row["table"]])  # older software did not record it
        lines[row["table"]] += row["lines"]
    return sorted(INGESTED_FILES.validate_python(rows), key=lambda file: (file.run, file.first))


def record(layer_path: Path, run: Run, rules: Sequence[RuleRun] = (), files: Sequence[IngestedFile] = ()) -> Run:
    """The commit point: from here on readers see what `run` names. Its rules and files are written before it. Rules of
    an earlier run are recorded as the run's own. The run as it was recorded."""
    crash_point(Point.ALL_COMMITTED)
    rows = [asdict(rule) | {"run": run.run, "severity": rule.severity.value} for rule in rules]
    quality_version = append_rows(layer_path / QUALITY, run.run, rows, RULE_RUN)
    crash_point(Point.RULES_RECORDED)
    files_version = append_rows(layer_path / FILES, run.run, [asdict(file) for file in files], INGESTED_FILE)
    crash_point(Point.FILES_RECORDED)
    run = replace(run, quality_version=quality_version, files_version=files_version)
    try:
        append_rows(layer_path / RUNS, run.run, [asdict(run)], RUN)
    except Exception:
        if last_run(layer_path, run.domain) != run:  # else what failed came after the commit
            raise
    return run


def check_tables(layer: str, layer_path: Path, run: Run, advice: str = "") -> None:
    """Raises StorageFault, naming table, file and advice, when a table is not as `run` left it."""
    try:
        _check_tables(layer, layer_path, run)
    except StorageFault as fault:
        advice = advice or f"restore it from a backup, or delete {layer_path} and run `make {layer}`"
        raise StorageFault(f"{fault}; {advice}") from fault


def _check_tables(layer: str, layer_path: Path, run: Run) -> None:
    at = f"run {run.run}"
    runs = heads(layer_path)  # of all domains: they share these tables
    for name, field in ((QUALITY, "quality_version"), (FILES, "files_version")):
        path, recorded = layer_path / name, {getattr(head, field) for head in runs} - {None}
        there = delta.version(path)
        if recorded and (there is None or there < max(recorded)):
            delta.require_end(path)
            raise StorageFault(f"table {path}: version {max(recorded)}, which a run wrote, is missing")
    for table in run.tables:
        path = layer_path / run.domain / table.name
        name = delta.full_name(layer, run.domain, table.name)
        # Software that recorded no fingerprints had other names for tables.
        names = [name] if table.files else [name, *delta.older_names(name)]
        files = delta.checked(path, table.version, names, at)
        if table.files and files != table.files:
            raise StorageFault(f"table {path}: version {table.version} has other files than {at} left in it")


def roll_back(layer_path: Path, domain: str, report: Report | None = None) -> None:
    """Brings the tables of a domain back to what its last complete run recorded. Commits that were cut off go, and each
    table whose head is another version is restored: a run that did not complete left it so, or somebody wrote by hand.
    Both are reported, except what a run left in full."""
    logs = [path.parent for folder in (layer_path, layer_path / domain) for path in folder.glob(f"*/{delta.LOG}")]
    for commit in (commit for path in logs for commit in delta.cut_off(path)):
        with storage(f"file {commit}"):
            commit.unlink()
        if report:
            problem = "was cut off, as when the power fails; no run that completed made it: removed"
            report.warning(f"file {commit} {problem}")
    if (run := last_run(layer_path, domain)) is None:
        return
    for table in run.tables:
        path = layer_path / domain / table.name
        if report and delta.version(path) != table.version and (writer := commits.written_by_hand(path)):
            report.warning(f"table {path}: a {writer} is undone; only runs write here")
        restore_version(path, table.version, run.run)


def restore_version(path: Path, target: int, run: int) -> int:
    """Makes a version the content of a table again, as a commit of `run`, unless it is already. The version that the
    head has now."""
    if delta.version(path) == target:
        return target
    head = commits.restore(path, target, run)
    crash_point(Point.TABLE_ROLLED_BACK)
    return head


@contextmanager
def locked(settings: Settings, patient: bool = False) -> Iterator[None]:
    """`folders.locked`, which makes and sweeps folders, unless newer software recorded runs in the lake: that raises
    StorageFault first."""
    for path in (settings.layer_path(layer) / name for layer in LAYERS for name in RECORDS):
        _require_known_format(path)
    with folders.locked(settings, patient):
        yield


def _require_known_format(path: Path) -> None:
    """Raises StorageFault when newer software recorded runs in a table of the run log."""
    recorded = "0"
    with suppress(StorageFault):  # who reads the rows names what is damaged
        if (head := delta.version(path)) is not None:
            recorded = delta.read_version(path, head).metadata.configuration.get(FORMAT_PROPERTY) or "0"
    if not recorded.isdecimal() or int(recorded) > FORMAT:
        newer = f"newer software recorded runs here, in format {recorded}"
        raise StorageFault(f"table {path}: {newer}; this software knows formats up to {FORMAT}: update it")


def find_run(settings: Settings, word: str) -> tuple[str, Run]:
    """The layer and the run that a word like `gold/12` names. Raises UsageFault."""
    layer, _, number = word.partition("/")
    if layer not in LAYERS or not re.fullmatch("[0-9]+", number):
        what = f"{word} is no run" if word else "no run is named"
        raise UsageFault(f"{what}; name one of `make history`, as in `make restore RUN=gold/12`")
    for run in read_runs(settings.layer_path(layer), run=int(number)):
        return layer, run
    raise UsageFault(f"{layer} has no run {number}; `make history` lists them")


def read_rows(path: Path, where: Mapping[str, int | str], columns: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The rows of a small table that have given values, as dicts without nulls; of all columns, or of those named."""
    if delta.version(path) is None:
        return []
    try:
        rows = _read(path, columns, where)
    except StorageFault:
        rows = _read(path, columns, where)  # its files may just have been made one
    return [_without_nulls(row) for row in rows]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _read(path: Path, columns: tuple[str, ...], where: Mapping[str, int | str]) -> list[dict[str, Any]]:
    _require_known_format(path)
    try:
        delta.checked(path, None, (path.name, ""))  # older software took the name away, or gave none
    except StorageFault as fault:
        raise StorageFault(f"{fault}; restore it from a backup, or delete {path.parent} and run that layer") from fault
    rows: list[dict[str, Any]] = []
    # File by file: pyarrow's threads under delta-rs's dataset can abort the process at its end.
    for file in delta.file_paths(path, delta.version(path)):
        with storage(f"file {file}"):
            table = _content(Path(file))
            if not {"run", "domain"} <= set(table.column_names):
                raise StorageFault(f"table {path}: {delta.LOG} is of another table, its rows are no records of runs")
        if columns:
            table = table.select([name for name in columns if name in table.column_names])
        # Not by Arrow's own filter, which does not know all types that delta-rs writes.
        known = {name: table[name].to_pylist() for name in where}
        kept = [at for at in range(len(table)) if all(known[name][at] == value for name, value in where.items())]
        rows += table.to_pylist() if len(kept) == len(table) else [table.slice(at, 1).to_pylist()[0] for at in kept]
    return rows


@partial(read_once, files=64)  # a stream makes many, and each may have all rows
def _content(file: Path) -> pa.Table:
    return pq.ParquetFile(file).read(use_threads=False)


def append_rows(
    path: Path, run: int, rows: list[dict[str, Any]], schema: pa.Schema, many: int = MANY_SMALL_FILES
) -> int | None:
    """Adds rows of a run to a table of the run log; `many` small files of it become one. In `_quality` and `_files` the
    rows replace those of this number or a later one, which are of runs that did not complete. The table gets the
    columns that it lacks; those that only it has are null. Its version, None when there is no table."""
    with storage(f"table {path}"):
        head = delta.version(path)
        sizes = delta.files_of(path, head)
        small = {name for name, size in sizes.items() if size < SMALL_BYTES}
        stale = {name for name in sizes if path.name != RUNS and pc.max(_content(path / name)["run"]).as_py() >= run}
        replaced = stale | (small if len(small) >= many else set())
        if not (rows or replaced):
            return head
        delta.make_folder(path)
        # Superseded before this version, some runs ago: readers have gone on since, and ours look again.
        for name in {file.name for file in path.glob(delta.PARTS)} - sizes.keys() if replaced else ():
            (path / name).unlink(missing_ok=True)
        comment = COMMENTS[path.name]
        if head is not None:
            stored = delta.read_version(path, head)
            comment = stored.metadata.description or comment
            fields = [pa.schema(stored.schema.to_arrow()), schema]
            schema = pa.unify_schemas(fields, promote_options="permissive")
        kept = [row for name in sorted(replaced) for row in _content(path / name).to_pylist()]
        kept = [row for row in kept if row["run"] < run or path.name == RUNS]
        added = [delta.part_name(run)] if kept or rows else []
        for name in added:
            pq.write_table(pa.Table.from_pylist(kept + rows, schema=schema), path / name, compression="zstd")
        properties = delta.PROPERTIES | {FORMAT_PROPERTY: str(FORMAT)}
        definition = commits.Definition(path.name, comment, Schema.from_arrow(schema), ("run",), properties)
        gone = {name: sizes[name] for name in replaced}
        version = commits.write(path, definition, commits.appended(str(run)), added, gone)
        if version % delta.CHECKPOINT_EVERY == 0:
            delta.shorten_log(path)
        return version


def compact(path: Path, many: int) -> None:
    """Makes one of a table's small files if there are so many."""
    if rows := read_rows(path, {}, ("run",)):
        append_rows(path, max(row["run"] for row in rows) + 1, [], pa.schema([]), many)
