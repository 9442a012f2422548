"""One run of bronze: from the source, PostgreSQL or files, to the commit point."""

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from conf.contract import Table
from conf.settings import Postgres
from pipelines.core import catalogue
from pipelines.core.errors import ContractFault, UsageFault
from pipelines.core.names import LAYERS
from pipelines.core.points import Point, crash_point
from pipelines.lake import run_log
from pipelines.lake.runs import Run, RunContext, reason_for_full, table_runs
from pipelines.lake.versions import StagedTable
from pipelines.run.begin import next_run, refuse_other_source
from pipelines.run.commit import commit_staged, discarded_on_failure, rolled_back_on_failure, stage
from pipelines.run.request import Call
from pipelines.sources.domains import address
from pipelines.sources.postgres.embedded import source_server
from pipelines.sources.postgres.retry import with_retries

if TYPE_CHECKING:
    from pipelines.sources.postgres.snapshot import Snapshot


ROW_BYTES = 100  # of a row in the source, its overhead included


def run_bronze(call: Call, domain: str) -> Run:
    """Copies the source of a domain."""
    settings, path, source = call.settings, call.settings.bronze_path, address(call.settings, domain)
    for layer in LAYERS:
        folder = settings.layer_path(layer)
        refuse_other_source(layer, folder, run_log.last_run(folder, domain), source)
    previous = run_log.last_run(path, domain)
    lake = previous.lake if previous else uuid.uuid4().hex
    run = replace(next_run(settings, "bronze", domain), lake=lake, source=source)
    context, staged = RunContext(run, previous, call.request.full), list[StagedTable]()
    run_log.roll_back(path, previous)
    with rolled_back_on_failure(path, domain), discarded_on_failure(staged):
        if catalogue.is_of_files(domain):
            _ingest_files(call, context, staged)
        else:
            snapshot = _read_postgres(call, context, staged)
            run = replace(run, snapshot=snapshot.xid_range, position=snapshot.log_after)
        return commit_staged(path, run, staged, call.report)


def _ingest_files(call: Call, context: RunContext, staged: list[StagedTable]) -> None:
    """Stages the tables of a domain with the files that have arrived for it."""
    from pipelines.bronze import files as bronze_files

    settings, report, domain = call.settings, call.report, context.run.domain
    tables = catalogue.tables_of("bronze", domain)
    files = bronze_files.landing_state(settings, domain, tables, report, call.request.at_most_files)
    crash_point(Point.LANDING_LISTED)
    if files.new or context.full:
        call.spark.start_ahead(sum(file.bytes for file in files.new) // ROW_BYTES)
    stage("bronze", bronze_files.read(settings, files, tables, context, report), staged, report)


def _read_postgres(call: Call, context: RunContext, staged: list[StagedTable]) -> "Snapshot":
    """Stages all tables of a domain, again from the start if the source failed for a while."""
    settings, tables = call.settings, catalogue.tables_of("bronze", context.run.domain)
    if not (settings.postgres or settings.spark.is_local):
        raise UsageFault(
            f"the embedded server is for this machine only, and {settings.spark.master} reads from others; name a "
            "PostgreSQL that its workers reach, or take LAKEHOUSE_SPARK__MASTER away"
        )
    with source_server(settings) as server:
        snapshot = with_retries(
            lambda: _read_tables(call, context, server, staged), settings.retry_seconds, call.report
        )
    order = [table.name for table in tables]
    staged.sort(key=lambda table: order.index(table.table_run.name))
    return snapshot


def _read_tables(call: Call, context: RunContext, server: Postgres, staged: list[StagedTable]) -> "Snapshot":
    """All tables as of one snapshot, which lasts until the last of them is read. Spark starts meanwhile if a table is
    read in full for a reason that is also silver's."""
    from pipelines.bronze import job as bronze_job
    from pipelines.sources.postgres.snapshot import take_snapshot

    settings, spark, report = call.settings, call.spark, call.report
    tables = catalogue.tables_of("bronze", context.run.domain)
    names = [table.source_name for table in tables]
    try:
        with discarded_on_failure(staged), take_snapshot(server, settings.schema_name, names) as snapshot:
            if _reads_in_full(call, context, tables):
                spark.start_ahead(_likely_rows(snapshot, tables), surely=not settings.spark.is_local)
            stage("bronze", bronze_job.read(settings, snapshot, tables, context, report, spark.get), staged, report)
        return snapshot
    except ContractFault as fault:
        hint = "" if settings.postgres else "; the source is the embedded server, `make seed` fills it"
        raise ContractFault(f"{fault}{hint}") from fault


def _reads_in_full(call: Call, context: RunContext, tables: tuple[Table, ...]) -> bool:
    last = table_runs(context.previous)
    return any(
        reason_for_full(call.settings, last.get(name), name in context.full, context.run.started)
        for name in (table.name for table in tables)
    )


def _likely_rows(snapshot: "Snapshot", tables: tuple[Table, ...]) -> int:
    """The number of rows in the source's tables, estimated by their size."""
    from pipelines.sources.postgres.relations import describe

    relations = [describe(snapshot, table.source_name) for table in tables]
    return sum(relation.size for relation in relations if relation) // ROW_BYTES
