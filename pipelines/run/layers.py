"""A run: the locks, then each layer's work from the last complete run of the layer before."""

import uuid
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Postgres, Settings
from pipelines.core import catalogue, identity
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, Fault, UsageFault
from pipelines.core.names import LAYERS, downstream_layer, upstream_layer
from pipelines.core.points import Point, crash_point
from pipelines.export.publish import drafted
from pipelines.lake import delta, folders, full_build, run_log
from pipelines.lake.changes import MANY_SMALL_FILES
from pipelines.lake.run_log import complete_run, no_complete_run
from pipelines.lake.runs import Run, RunContext, table_runs
from pipelines.lake.staging import StagedTable
from pipelines.run.begin import check_layers, next_run, origin_of, refuse_other_source
from pipelines.run.commit import collect, commit_staged, discard, rolled_back_on_failure
from pipelines.sources.domains import address, ready
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.retry import with_retries
from pipelines.spark.lazy import LazySession

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.export.csv import PreviousCsv
    from pipelines.sources.postgres.snapshot import Snapshot


ROW_BYTES = 100  # of a row in the source, its overhead included


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
    built in full, the others apply what changed if they can. `at_most`: the files that a stream's micro-batch takes,
    which waits until others have ended, and only says so where a file that was taken has other content.
    """
    done: list[tuple[str, Run]] = []
    faults: list[Fault] = []
    order = [layer for layer in LAYERS if layer in layers]
    if order[0] != "bronze" and not settings.layer_path(before := upstream_layer(order[0])).exists():
        raise no_complete_run(settings, before)  # before any folder is made
    with (
        folders.locked(settings, patient=at_most is not None),
        LazySession(settings, spark, "silver" in layers, report) as sessions,
    ):
        domains = only or ready(settings, order[0], report)
        look_at = [layer for layer in LAYERS if {layer, downstream_layer(layer)} & layers]

        def build(layer: str, domain: str) -> Run:
            if layer == "bronze":
                return _run_bronze(settings, domain, sessions, report, full, at_most)
            last = (layer, domain) == (order[-1], domains[-1])
            return _run_layer(settings, layer, domain, sessions, report, full, last)

        for domain in domains:
            try:
                check_layers(settings, domain, look_at)
                done += ((layer, build(layer, domain)) for layer in order)
            except Fault as fault:
                if len(domains) == 1:
                    raise
                report.step(f"{domain}: {fault.kind}: {fault}", level="error", domain=domain, code=fault.code)
                faults.append(fault)
        if at_most is not None:  # many runs: what they say of themselves stays in few files
            for name in run_log.RECORDS:
                for layer in order:
                    run_log.compact(settings.layer_path(layer) / name, MANY_SMALL_FILES)
    return done, faults


def _run_bronze(
    settings: Settings,
    domain: str,
    sessions: LazySession,
    report: Report,
    full: frozenset[str],
    at_most: int | None,
) -> Run:
    path, source, tables = settings.bronze_path, address(settings, domain), catalogue.tables_of("bronze", domain)
    for layer in LAYERS:
        refuse_other_source(
            layer, settings.layer_path(layer), run_log.last_run(settings.layer_path(layer), domain), source
        )
    previous = run_log.last_run(path, domain)
    run = next_run(settings, "bronze", domain, previous.lake if previous else uuid.uuid4().hex, None, source)
    call = RunContext(run, previous, full)
    run_log.roll_back(path, previous)
    with rolled_back_on_failure(path, domain):
        if catalogue.is_of_files(domain):
            return commit_staged(path, run, _take(settings, tables, call, sessions, report, at_most), report)
        if not (settings.postgres or settings.spark.is_local):
            raise UsageFault(
                f"the embedded server is for this machine only, and {settings.spark.master} reads from others; name a "
                "PostgreSQL that its workers reach, or take LAKEHOUSE_SPARK__MASTER away"
            )
        with source_server(settings) as server:
            snapshot, built = with_retries(
                lambda: _read(settings, server, tables, call, sessions, report), settings.retry_seconds, report
            )
            order = [table.name for table in tables]
            built.sort(key=lambda one: order.index(one.table_run.name))
            run = replace(run, snapshot=snapshot.xid_range, position=snapshot.log_after)
            return commit_staged(path, run, built, report)


def _take(
    settings: Settings,
    tables: tuple[Table, ...],
    call: RunContext,
    sessions: LazySession,
    report: Report,
    at_most: int | None,
) -> list[StagedTable]:
    """The tables of a domain with the files that came for it."""
    from pipelines.bronze import files as bronze_files

    files = bronze_files.landing_state(settings, call.run.domain, tables, report, at_most)
    crash_point(Point.LANDING_LISTED)
    if files.new or call.full:
        sessions.ahead(sum(file.bytes for file in files.new) // ROW_BYTES)
    return collect("bronze", bronze_files.read(settings, files, tables, call, report), report)


def _read(
    settings: Settings,
    server: Postgres,
    tables: tuple[Table, ...],
    call: RunContext,
    sessions: LazySession,
    report: Report,
) -> "tuple[Snapshot, list[StagedTable]]":
    """All tables of one snapshot, which held until the last of them was read; else no file of them stays. `ahead` is
    called, with the rows to expect, before a table is read whole for a reason that is silver's, too."""
    from pipelines.bronze import job as bronze_job
    from pipelines.sources.postgres.snapshot import take_snapshot

    built: list[StagedTable] = []
    try:
        with take_snapshot(server, settings.schema_name, [table.source_name for table in tables]) as snapshot:
            before = table_runs(call.previous)
            now = call.run.started
            if any(
                full_build.reason_for_full(settings, before.get(one.name), one.name in call.full, now) for one in tables
            ):
                sessions.ahead(_likely_rows(snapshot, tables), surely=not settings.spark.is_local)
            built = collect("bronze", bronze_job.read(settings, snapshot, tables, call, report, sessions.get), report)
        return snapshot, built
    except ContractFault as fault:
        hint = "" if settings.postgres else "; the source is the embedded server, `make seed` fills it"
        raise ContractFault(f"{fault}{hint}") from fault
    except BaseException:
        discard(built)
        raise


def _likely_rows(snapshot: "Snapshot", tables: tuple[Table, ...]) -> int:
    """The rows of the source's tables, by their size."""
    from pipelines.sources.postgres.relations import describe

    relations = [describe(snapshot, table.source_name) for table in tables]
    return sum(relation.size for relation in relations if relation) // ROW_BYTES


def _run_layer(
    settings: Settings,
    layer: str,
    domain: str,
    sessions: LazySession,
    report: Report,
    full: frozenset[str],
    last: bool,
) -> Run:
    """One run of silver or gold. After the `last` Spark has no more work, and a CSV is written without its memory."""
    path, before = settings.layer_path(layer), upstream_layer(layer)
    upstream = complete_run(settings, before, domain)
    previous = run_log.last_run(path, domain)
    refuse_other_source(layer, path, previous, upstream.source)
    run = replace(
        next_run(settings, layer, domain, upstream.lake, upstream.run, upstream.source),
        snapshot=upstream.snapshot,
        card_numbers=settings.card_numbers,
        software=identity.software(domain),
    )
    entries = tuple(entry for entry in catalogue.entries(layer) if entry.table.domain == domain)
    from pipelines.gold import job as gold_job
    from pipelines.silver import job as silver_job
    from pipelines.spark.frames import storage_faults
    from pipelines.spark.job import Job

    build = {"silver": silver_job.build, "gold": gold_job.build}[layer]
    origin = origin_of(settings, layer, previous)
    run_log.roll_back(path, previous)
    with rolled_back_on_failure(path, domain), storage_faults():
        with folders.scratch(path, "run") as scratch:
            job = Job(
                run,
                previous,
                full,
                settings=settings,
                upstream=upstream,
                origin=origin,
                session=sessions.get,
                report=report,
                scratch=scratch,
            )
            built = collect(layer, build(job, entries), report)
        with ExitStack() as stack:
            try:
                if layer == "gold":
                    crash_point(Point.TABLES_BUILT)
                if last:
                    sessions.end()
                with_csv = [staged for staged in built if staged.table.csv]
                current = [staged for staged in with_csv if _has_csv(settings, staged)]
                drafts = {
                    one.table.name: stack.enter_context(
                        drafted(
                            settings, one.table, one.table_run, one.paths, report, _csv_before(settings, previous, one)
                        )
                    )
                    for one in with_csv
                    if one not in current
                }
                if drafts:
                    stack.enter_context(folders.publishing(settings))
            except BaseException:
                discard(built)
                raise
            for staged in current:
                report.step(f"{folders.csv_path(settings, staged.table)}: stays, it is the CSV of these rows")
            return commit_staged(path, run, built, report, drafts)


def _has_csv(settings: Settings, built: StagedTable) -> bool:
    """Whether a table did not change and its CSV is still the one that was written of it."""
    csv = folders.csv_path(settings, built.table)
    return built.is_unchanged and csv.exists() and folders.sha256(csv) == built.table_run.csv_sha256


def _csv_before(settings: Settings, previous: Run | None, built: StagedTable) -> "PreviousCsv | None":
    """The CSV that the last run left of a table, where it left one."""
    from pipelines.export.csv import PreviousCsv

    if previous is None or built.kept is None:
        return None
    was = previous.table(built.table.name)
    if not was.csv_sha256:
        return None
    files = delta.file_paths(folders.table_path(settings.gold_path, built.table), was.version)
    return PreviousCsv(frozenset(files), was.rows_out, was.totals, was.csv_sha256)
