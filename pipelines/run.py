"""A run: the locks, each layer's work from the last complete run of the layer before, and its commit point."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Postgres, Settings
from pipelines import basis, catalogue, embedded, lake, records
from pipelines.changes import MANY
from pipelines.domains import address, ready
from pipelines.duck import HASHING
from pipelines.errors import ContractFault, Fault, StorageFault, UsageFault
from pipelines.lake import EMBEDDED, LAYERS
from pipelines.proof import Built
from pipelines.publish import drafted
from pipelines.records import Call, Link, RuleRun, Run, TableRun, Taken, complete_run, no_complete_run
from pipelines.report import Report
from pipelines.retry import patiently
from pipelines.sessions import Sessions
from pipelines.signals import held_back

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.export import Before, Draft
    from pipelines.source import Snapshot

ROW_BYTES = 100  # of a row in the source, its overhead included


@contextmanager
def source_server(settings: Settings) -> Iterator[Postgres]:
    """The server that the settings name, or the embedded one, running while the context lasts."""
    if settings.postgres:
        yield settings.postgres
    else:
        with embedded.server() as server:
            yield server


def run_layers(
    settings: Settings,
    layers: set[str],
    report: Report,
    spark: "SparkSession | None" = None,
    full: frozenset[str] = frozenset(),
    only: tuple[str, ...] = (),
    at_most: int | None = None,
) -> tuple[list[tuple[str, Run]], list[Fault]]:
    """Runs the layers, bronze first, in one process and at most one JVM; each is complete before the next begins.

    One domain after the other: those of `only`, or all whose source is there. What one cannot do does not keep the
    others from their work; its fault is returned, or raised where it is the only one. Without `spark` a session is
    started when a layer needs one, beside bronze where silver surely will, and ends with the call. Tables in `full` are
    built whole, the others follow what changed where they can. `at_most`: the files that a stream's micro-batch takes,
    which waits until others have ended, and only says so where a file that was taken has other content.
    """
    done: list[tuple[str, Run]] = []
    faults: list[Fault] = []
    order = [layer for layer in LAYERS if layer in layers]
    if order[0] != "bronze" and not settings.layer_path(before := LAYERS[LAYERS.index(order[0]) - 1]).exists():
        raise no_complete_run(settings, before)  # before any folder is made
    with (
        lake.locked(settings, patient=at_most is not None),
        Sessions(settings, spark, "silver" in layers, report) as sessions,
    ):
        domains = only or ready(settings, order[0], report)
        look_at = [layer for layer, after in zip(LAYERS, (*LAYERS[1:], ""), strict=True) if {layer, after} & layers]

        def build(layer: str, domain: str) -> Run:
            if layer == "bronze":
                return _run_bronze(settings, domain, sessions, report, full, at_most)
            last = (layer, domain) == (order[-1], domains[-1])
            return _run_layer(settings, layer, domain, sessions, report, full, last)

        for domain in domains:
            try:
                check(settings, domain, look_at)
                done += ((layer, build(layer, domain)) for layer in order)
            except Fault as fault:
                if len(domains) == 1:
                    raise
                report.step(f"{domain}: {fault.kind}: {fault}", level="error", domain=domain, code=fault.code)
                faults.append(fault)
        if at_most is not None:  # many runs: what they say of themselves stays in few files
            for name in records.RECORDS:
                for layer in order:
                    records.compact(settings.layer_path(layer) / name, MANY)
    return done, faults


def check(settings: Settings, domain: str, layers: Sequence[str] = LAYERS) -> None:
    """Raises StorageFault where a table, or the record of a run, is not as the last complete runs left it."""
    for layer in layers:
        path = settings.layer_path(layer)
        run = records.last_run(path, domain)
        after = LAYERS[LAYERS.index(layer) + 1 :][:1]
        below = records.last_run(settings.layer_path(after[0]), domain) if after else None
        if run and below and run.lake == below.lake and run.run < (below.upstream_run or 0):
            said = f"run {below.upstream_run}, from which {after[0]} was built, is missing"
            raise StorageFault(f"table {path / records.RUNS}: {said}; restore it from a backup, or delete {path}")
        if run:
            records.check(layer, path, run)


def _run_bronze(
    settings: Settings,
    domain: str,
    sessions: Sessions,
    report: Report,
    full: frozenset[str],
    at_most: int | None,
) -> Run:
    path, source, tables = settings.bronze_path, address(settings, domain), catalogue.of("bronze", domain)
    for layer in LAYERS:
        _same_kind(layer, settings.layer_path(layer), records.last_run(settings.layer_path(layer), domain), source)
    previous = records.last_run(path, domain)
    run = next_run(settings, "bronze", domain, previous.lake if previous else uuid.uuid4().hex, None, source)
    call = Call(run, previous, full)
    records.bring_back(path, previous)
    with undone_on_failure(path, domain):
        if catalogue.is_of_files(domain):
            return _complete(path, run, _take(settings, tables, call, sessions, report, at_most), report)
        if not (settings.postgres or settings.spark.is_local):
            raise UsageFault(
                f"the embedded server is for this machine only, and {settings.spark.master} reads from others; name a "
                "PostgreSQL that its workers reach, or take LAKEHOUSE_SPARK__MASTER away"
            )
        with source_server(settings) as server:
            picture, built = patiently(
                lambda: _read(settings, server, tables, call, sessions, report), settings.retry_seconds, report
            )
            order = [table.name for table in tables]
            built.sort(key=lambda one: order.index(one.done.name))
            run = replace(run, snapshot=picture.xid_range, position=picture.before)
            return _complete(path, run, built, report)


def _take(
    settings: Settings,
    tables: tuple[Table, ...],
    call: Call,
    sessions: Sessions,
    report: Report,
    at_most: int | None,
) -> list[Built]:
    """The tables of a domain with the files that came for it."""
    from pipelines import intake

    files = intake.waiting(settings, call.run.domain, tables, report, at_most)
    if files.new or call.full:
        sessions.ahead(sum(file.bytes for file in files.new) // ROW_BYTES)
    return _collect("bronze", intake.read(settings, files, tables, call, report), report)


def _read(
    settings: Settings,
    server: Postgres,
    tables: tuple[Table, ...],
    call: Call,
    sessions: Sessions,
    report: Report,
) -> "tuple[Snapshot, list[Built]]":
    """All tables of one snapshot, which held until the last of them was read; else no file of them stays. `ahead` is
    called, with the rows to expect, before a table is read whole for a reason that is silver's, too."""
    from pipelines import bronze
    from pipelines.source import snapshot

    built: list[Built] = []
    try:
        with snapshot(server, settings.schema_name, [table.source_name for table in tables]) as picture:
            before = {done.name: done for done in call.previous.tables} if call.previous else {}
            now = call.run.started
            if any(basis.whole(settings, before.get(one.name), one.name in call.full, now) for one in tables):
                sessions.ahead(_likely_rows(settings, picture, tables), surely=not settings.spark.is_local)
            built = _collect(
                "bronze", bronze.read(settings, server, picture, tables, call, report, sessions.get), report
            )
        return picture, built
    except ContractFault as fault:
        hint = "" if settings.postgres else "; the source is the embedded server, `make seed` fills it"
        raise ContractFault(f"{fault}{hint}") from fault
    except BaseException:
        _discard(built)
        raise


def _likely_rows(settings: Settings, picture: "Snapshot", tables: tuple[Table, ...]) -> int:
    """The rows of the source's tables, by their size."""
    from pipelines.source import describe

    found = [describe(picture.connection, settings.schema_name, table.source_name) for table in tables]
    return sum(relation.size for relation in found if relation) // ROW_BYTES


def _run_layer(
    settings: Settings,
    layer: str,
    domain: str,
    sessions: Sessions,
    report: Report,
    full: frozenset[str],
    last: bool,
) -> Run:
    """One run of silver or gold. After the `last` Spark has no more work, and a CSV is written without its memory."""
    path, before = settings.layer_path(layer), LAYERS[LAYERS.index(layer) - 1]
    upstream = complete_run(settings, before, domain)
    previous = records.last_run(path, domain)
    _same_kind(layer, path, previous, upstream.source)
    run = replace(
        next_run(settings, layer, domain, upstream.lake, upstream.run, upstream.source),
        snapshot=upstream.snapshot,
        card_numbers=settings.card_numbers,
        software=basis.software(domain),
    )
    entries = tuple(entry for entry in catalogue.entries(layer) if entry.table.domain == domain)
    from pipelines import gold, silver
    from pipelines.spark import storage_faults

    job = {"silver": silver, "gold": gold}[layer]
    link = Link(Call(run, previous, full), upstream, origin_of(settings, layer, previous))
    records.bring_back(path, previous)
    with undone_on_failure(path, domain), storage_faults():
        built = _collect(layer, job.build(settings, sessions.get, link, entries, report), report)
        with ExitStack() as stack:
            try:
                if last:
                    sessions.end()
                drafts = [
                    stack.enter_context(
                        drafted(settings, one.table, one.done, one.paths, report, _csv_before(settings, previous, one))
                    )
                    for one in built
                    if one.table.csv and not _has_csv(settings, previous, one)
                ]
                if drafts:
                    stack.enter_context(lake.publishing(settings))
            except BaseException:
                _discard(built)
                raise
            if previous and not drafts:
                run = replace(run, csv_sha256=previous.csv_sha256)
                for one in (one for one in built if one.table.csv):
                    report.step(f"{lake.csv_path(settings, one.table)}: stays, it is the CSV of these rows")
            return _complete(path, run, built, report, drafts)


def origin_of(settings: Settings, layer: str, previous: Run | None) -> Run | None:
    """The run that a layer's last run was built from, where all it left is still there."""
    before = LAYERS[LAYERS.index(layer) - 1]
    run = records.upstream_of(settings.layer_path(before), previous)
    try:
        if run:
            records.check(before, settings.layer_path(before), run)
        return run
    except StorageFault:
        return None


def _has_csv(settings: Settings, previous: Run | None, built: Built) -> bool:
    """Whether a table did not change and its CSV is still the one that was written of it."""
    csv = lake.csv_path(settings, built.table)
    return built.is_unchanged and previous is not None and csv.exists() and lake.sha256(csv) == previous.csv_sha256


def _csv_before(settings: Settings, previous: Run | None, built: Built) -> "Before | None":
    """The CSV that the last run left of a table, where it left one."""
    from pipelines.export import Before

    if previous is None or not previous.csv_sha256 or built.kept is None:
        return None
    was = previous.table(built.table.name)
    files = lake.file_paths(lake.table_path(settings.gold_path, built.table), was.version)
    return Before(frozenset(files), was.rows_out, was.totals, previous.csv_sha256)


def _collect(layer: str, building: Iterator[Built], report: Report) -> list[Built]:
    """All of a layer's tables, written and proved; where one fails, no file of the others stays either."""
    built: list[Built] = []
    try:
        for one in building:
            built.append(one)
            if not one.is_unchanged:
                report.table(layer, one.table.domain, one.done)
    except BaseException:
        _discard(built)
        raise
    if all(one.is_unchanged for one in built):
        report.step(f"{layer}: nothing changed")
    return built


def _discard(built: list[Built]) -> None:
    for one in built:
        one.discard()


def complete(
    path: Path,
    run: Run,
    commits: Iterable[TableRun],
    rules: tuple[RuleRun, ...] = (),
    drafts: "Sequence[Draft]" = (),
    files: Sequence[Taken] = (),
) -> Run:
    """Lets `commits` make each table's commit, gives the CSVs their names, and records the run: the commit point. If
    that fails, the old CSVs are back."""
    with held_back(), ExitStack() as published:
        run = replace(run, tables=tuple(commits))
        for csv in drafts:
            published.enter_context(csv.published())
            run = replace(run, csv_sha256=csv.sha256)
        run = replace(run, finished=datetime.now(UTC))
        records.record(path, run, rules, files)
    return run


def _complete(path: Path, run: Run, built: list[Built], report: Report, drafts: "Sequence[Draft]" = ()) -> Run:
    """The commits of what was built; where one fails, what was not committed leaves no file."""
    left = list(built)

    def commits() -> Iterator[TableRun]:
        while left:
            yield left[0].commit()
            left.pop(0)

    run = replace(run, hashing=HASHING, warnings=report.new_warnings())
    rules, files = tuple(rule for one in built for rule in one.rules), [file for one in built for file in one.taken]
    try:
        return complete(path, run, commits(), rules, drafts, files)
    except BaseException:
        _discard(left)
        raise


def next_run(settings: Settings, layer: str, domain: str, lake_id: str, upstream: int | None, source: str) -> Run:
    """A run that begins. Its number is above those of the layer and those that the layer below was built from, whatever
    the clock says."""
    after = LAYERS[LAYERS.index(layer) + 1 :][:1]
    numbers = [run.run for run in records.heads(settings.layer_path(layer))]
    numbers += [run.upstream_run or 0 for name in after for run in records.heads(settings.layer_path(name))]
    now = datetime.now(UTC)
    return Run(max(numbers, default=0) + 1, lake_id, domain, upstream, source, "", now, now)


def _same_kind(layer: str, path: Path, previous: Run | None, source: str) -> None:
    """Fake members never replace real ones, nor the reverse. Raises UsageFault naming both sources."""
    if previous and (previous.source == EMBEDDED) != (source == EMBEDDED):
        was, now = (f"the {name} server" if name == EMBEDDED else name for name in (previous.source, source))
        raise UsageFault(
            f"{layer} in {path} was filled from {was}, and would now be filled from {now}; "
            "name the right PostgreSQL, or another lake with LAKEHOUSE_ROOT, or begin anew with `make reset`"
        )


@contextmanager
def undone_on_failure(path: Path, domain: str) -> Iterator[None]:
    """After a failure the tables are as the last complete run left them, which may be the one that was just recorded;
    if that fails, too, the next run does it."""
    try:
        yield
    except BaseException:
        with held_back(), suppress(Fault):
            records.bring_back(path, records.last_run(path, domain))
        raise
