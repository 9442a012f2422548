"""The runs of one call: layer after layer, domain after domain, under the lake's lock and in one Spark session."""

import uuid
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from conf.settings import Postgres, Settings
from pipelines.core import catalogue, identity
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, Fault, QualityFault, UsageFault
from pipelines.core.names import LAYERS, downstream_layer, upstream_layer
from pipelines.core.points import Point, crash_point
from pipelines.export.csv import is_current
from pipelines.export.publish import drafted
from pipelines.lake import folders, run_log
from pipelines.lake.runs import Job, Run, RunContext, reason_for_full, table_runs
from pipelines.lake.versions import StagedTable
from pipelines.run import lifecycle
from pipelines.sources.domains import address, ready
from pipelines.sources.postgres.connection import in_clear_warning
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.snapshot import Snapshot, describe, take_snapshot, with_retries
from pipelines.spark.session import LazySession

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROW_BYTES = 100  # of a row in the source, its overhead included


@dataclass(frozen=True)
class RunRequest:
    """The layers to run, and of which domains: all whose source is there, if none is named.

    Tables in `full` are built in full; the others apply what changed, if they can. `at_most_files` is the number that a
    stream's micro-batch ingests. Such a run waits until others have ended, and only warns about an ingested file with
    other content now, unless its name is or matches `replace`: then that replaces its rows. `readers_are_tasks`:
    PostgreSQL is read by tasks of the session on this machine, too.
    """

    layers: Set[str] = frozenset(LAYERS)
    domains: tuple[str, ...] = ()
    full: frozenset[str] = frozenset()
    at_most_files: int | None = None
    readers_are_tasks: bool = False
    replace: str = ""


@dataclass(frozen=True)
class Call:
    """What all runs of one call work with."""

    settings: Settings
    request: RunRequest
    spark: LazySession
    report: Report


def run_layers(
    settings: Settings, request: RunRequest, report: Report, spark: "SparkSession | None" = None
) -> tuple[list[tuple[str, Run]], list[Fault]]:
    """Runs layers, each complete before the next begins, one domain after the other. Returns the runs, by layer, and
    the faults of domains: a domain that fails keeps no other from its work. The fault of an only domain is raised.

    Without `spark`, a session starts when a layer needs one, or beside bronze if silver surely will; it ends with the
    call.
    """
    order = [layer for layer in LAYERS if layer in request.layers]
    checked = [layer for layer in LAYERS if {layer, downstream_layer(layer)} & request.layers]  # that are run or read
    if order[0] != "bronze" and not settings.layer_path(upstream_layer(order[0])).exists():
        raise run_log.no_complete_run(settings, upstream_layer(order[0]))  # before any folder is made
    runs: list[tuple[str, Run]] = []
    faults: list[Fault] = []
    with (
        run_log.locked(settings, patient=request.at_most_files is not None),
        LazySession(settings, spark, report) as session,
    ):
        call = Call(settings, request, session, report)
        domains = request.domains or ready(settings, order[0], report)
        for domain in domains:
            try:
                lifecycle.check_layers(settings, domain, checked)
                for layer in order:
                    is_last = (layer, domain) == (order[-1], domains[-1])
                    run = _run_bronze(call, domain) if layer == "bronze" else _run_derived(call, layer, domain, is_last)
                    runs.append((layer, run))
            except Fault as fault:
                if len(domains) == 1:
                    raise
                report.step(f"{domain}: {fault.kind}: {fault}", level="error", domain=domain, code=fault.code)
                faults.append(fault)
    return runs, faults


def _run_bronze(call: Call, domain: str) -> Run:
    """Copies the source of a domain, PostgreSQL or files."""
    settings, path, source = call.settings, call.settings.bronze_path, address(call.settings, domain)
    for layer in LAYERS:
        folder = settings.layer_path(layer)
        lifecycle.refuse_other_source(layer, folder, run_log.last_run(folder, domain), source)
    previous = run_log.last_run(path, domain)
    lake = previous.lake if previous else uuid.uuid4().hex
    run = replace(lifecycle.next_run(settings, "bronze", domain), lake=lake, source=source)
    context = RunContext(run, previous, call.request.full)
    run_log.roll_back(path, domain, call.report)
    with lifecycle.rolled_back_on_failure(path, run):
        if catalogue.is_of_files(domain):
            staged = _ingest_files(call, context)
        else:
            snapshot, staged = _read_postgres(call, context)
            run = replace(run, snapshot=snapshot.xid_range, position=snapshot.log_after)
        return lifecycle.commit_staged(path, run, staged, call.report)


def _ingest_files(call: Call, context: RunContext) -> list[StagedTable]:
    from pipelines.bronze import files as bronze_files

    settings, report, domain = call.settings, call.report, context.run.domain
    tables, request = catalogue.tables_of("bronze", domain), call.request
    files = bronze_files.landing_state(settings, domain, report, request.at_most_files, request.replace)
    crash_point(Point.LANDING_LISTED)
    if "silver" in request.layers and (files.new or context.full):
        call.spark.start_ahead(sum(file.bytes for file in files.new) // ROW_BYTES)
    return lifecycle.stage("bronze", bronze_files.read(settings, files, tables, context, report), report)


def _read_postgres(call: Call, context: RunContext) -> tuple[Snapshot, list[StagedTable]]:
    """Stages all tables of a domain, again from the start if the source failed for a while; once more if its rows were
    not those that it counted: a partition that is attached meanwhile is in every snapshot at once."""
    settings = call.settings
    if not (settings.postgres or settings.spark.is_local):
        raise UsageFault(
            f"the embedded server is for this machine only, and {settings.spark.master} reads from others; name a "
            "PostgreSQL that its workers reach, or take LAKEHOUSE_SPARK__MASTER away"
        )
    call.report.progress("source", "start")
    with source_server(settings) as server:
        call.report.finished("source", "start")
        staging = partial(_read_tables, call, context, server)
        try:
            return with_retries(staging, settings.retry_seconds, call.report)
        except QualityFault as fault:
            call.report.again(f"source: {fault}; trying again with a new snapshot")
            return with_retries(staging, settings.retry_seconds, call.report)


def _read_tables(call: Call, context: RunContext, server: Postgres) -> tuple[Snapshot, list[StagedTable]]:
    """Stages all tables as of one snapshot. Spark starts meanwhile if silver, too, will read one of them in full."""
    from pipelines.bronze import job as bronze_job

    settings, spark, report = call.settings, call.spark, call.report
    tables, last = catalogue.tables_of("bronze", context.run.domain), table_runs(context.previous)
    names = [table.source_name for table in tables]
    lifecycle.sweep(settings.bronze_path, context.run)  # of an earlier attempt
    try:
        with take_snapshot(server, settings.schema_name, names) as snapshot:
            if warning := in_clear_warning(snapshot.connection, server):
                report.warning(warning)
            if any(
                reason_for_full(settings, last.get(name), name in context.full, context.run.started)
                for name in (table.name for table in tables)
            ):
                sizes = [relation.size for name in names if (relation := describe(snapshot, name))]
                if "silver" in call.request.layers or not settings.spark.is_local:
                    spark.start_ahead(sum(sizes) // ROW_BYTES)
            by_tasks = call.request.readers_are_tasks or not settings.spark.is_local
            building = bronze_job.read(settings, snapshot, tables, context, report, spark.get if by_tasks else None)
            staged = lifecycle.stage("bronze", building, report)
        return snapshot, sorted(staged, key=lambda table: tables.index(table.table))
    except ContractFault as fault:
        hint = "" if settings.postgres else "; the source is the embedded server, `make seed` fills it"
        raise ContractFault(f"{fault}{hint}") from fault


def _run_derived(call: Call, layer: str, domain: str, is_last: bool) -> Run:
    """Builds silver or gold from the last complete run upstream. If `is_last`, Spark ends before CSVs are written."""
    from pipelines.gold import job as gold_job
    from pipelines.silver import job as silver_job
    from pipelines.spark.faults import spark_faults

    settings, report, full = call.settings, call.report, call.request.full
    path = settings.layer_path(layer)
    upstream = run_log.complete_run(settings, upstream_layer(layer), domain)
    previous = run_log.last_run(path, domain)
    lifecycle.refuse_other_source(layer, path, previous, upstream.source)
    run = replace(
        lifecycle.next_run(settings, layer, domain),
        lake=upstream.lake,
        upstream_run=upstream.run,
        source=upstream.source,
        snapshot=upstream.snapshot,
        card_numbers=settings.card_numbers,
        software=identity.software(domain),
    )
    origin = lifecycle.origin_of(settings, layer, previous)
    run_log.roll_back(path, domain, report)
    build = silver_job.build if layer == "silver" else gold_job.build
    entries = tuple(entry for entry in catalogue.entries(layer) if entry.table.domain == domain)
    with lifecycle.rolled_back_on_failure(path, run), spark_faults():
        with folders.scratch(path, "run") as scratch:
            job = Job(run, previous, full, settings, report, scratch, call.spark.get, upstream=upstream, origin=origin)
            staged = lifecycle.stage(layer, build(job, entries), report)
        if staged and layer == "silver" and catalogue.is_of_files(domain):
            # So that lines keep their numbers when bronze is deleted and made again.
            known = origin.run if origin and previous and previous.files_version is not None else 0
            files = (file for file in run_log.read_files(settings.bronze_path, domain) if file.run > known)
            staged[0] = replace(staged[0], taken=tuple(replace(file, run=run.run) for file in files))
        if layer == "gold":
            crash_point(Point.TABLES_BUILT)
        if is_last:
            call.spark.end()
        with drafted(settings, _without_csv(settings, staged, report), report, previous) as drafts:
            return lifecycle.commit_staged(path, run, staged, report, drafts)


def _without_csv(settings: Settings, staged: list[StagedTable], report: Report) -> Iterator[StagedTable]:
    """The tables that need a new CSV. A CSV that has the rows of its table already stays."""
    for table in (table for table in staged if table.table.csv):
        csv = folders.csv_path(settings, table.table)
        if table.is_unchanged and is_current(settings, table.table, table.table_run):
            report.passing(f"{csv}: unchanged, it already has these rows")
        else:
            yield table
