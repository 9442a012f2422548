"""One run of silver or gold: its tables are built, their CSVs written, both committed at one point."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from conf.settings import Settings
from pipelines.core import catalogue, identity
from pipelines.core.names import upstream_layer
from pipelines.core.points import Point, crash_point
from pipelines.export.publish import drafted
from pipelines.lake import folders, run_log
from pipelines.lake.run_log import complete_run
from pipelines.lake.runs import Run, TableRun
from pipelines.lake.versions import StagedTable
from pipelines.run.begin import next_run, origin_of, refuse_other_source
from pipelines.run.commit import commit_staged, discarded_on_failure, rolled_back_on_failure, stage
from pipelines.run.request import Call

if TYPE_CHECKING:
    from pipelines.export.csv import Draft
    from pipelines.spark.job import Job


def run_derived(call: Call, layer: str, domain: str, is_last: bool) -> Run:
    """Builds silver or gold from the last complete run of the layer below. After the last run of a call Spark ends, so
    that its memory is free when CSVs are written."""
    from pipelines.spark.frames import storage_faults
    from pipelines.spark.job import Job

    settings, report, path = call.settings, call.report, call.settings.layer_path(layer)
    upstream, previous = complete_run(settings, upstream_layer(layer), domain), run_log.last_run(path, domain)
    refuse_other_source(layer, path, previous, upstream.source)
    run = _begin(settings, layer, upstream)
    origin, staged = origin_of(settings, layer, previous), list[StagedTable]()
    run_log.roll_back(path, previous)
    with rolled_back_on_failure(path, domain), storage_faults(), discarded_on_failure(staged):
        with folders.scratch(path, "run") as scratch:
            job = Job(
                run,
                previous,
                call.request.full,
                settings=settings,
                upstream=upstream,
                origin=origin,
                session=call.spark.get,
                report=report,
                scratch=scratch,
            )
            stage(layer, _build(layer, job), staged, report)
        if layer == "gold":
            crash_point(Point.TABLES_BUILT)
        if is_last:
            call.spark.end()
        with _drafts(call, previous, staged) as drafts:
            return commit_staged(path, run, staged, report, drafts)


def _begin(settings: Settings, layer: str, upstream: Run) -> Run:
    return replace(
        next_run(settings, layer, upstream.domain),
        lake=upstream.lake,
        upstream_run=upstream.run,
        source=upstream.source,
        snapshot=upstream.snapshot,
        card_numbers=settings.card_numbers,
        software=identity.software(upstream.domain),
    )


def _build(layer: str, job: "Job") -> Iterator[StagedTable]:
    from pipelines.gold import job as gold_job
    from pipelines.silver import job as silver_job

    build = {"silver": silver_job.build, "gold": gold_job.build}[layer]
    return build(job, tuple(entry for entry in catalogue.entries(layer) if entry.table.domain == job.run.domain))


@contextmanager
def _drafts(call: Call, previous: Run | None, staged: list[StagedTable]) -> "Iterator[dict[str, Draft]]":
    """The new CSVs, by table, which nobody sees until they are published. A CSV that is of these rows already stays."""
    settings, report = call.settings, call.report
    with ExitStack() as stack:
        drafts = {}
        for table in (table for table in staged if table.table.csv):
            if _has_csv(settings, table):
                report.step(f"{folders.csv_path(settings, table.table)}: unchanged, it already has these rows")
                continue
            with_csv = _run_with_csv(previous, table)
            draft = drafted(settings, table.table, table.table_run, table.paths, report, with_csv)
            drafts[table.table.name] = stack.enter_context(draft)
        if drafts:
            stack.enter_context(folders.publishing(settings))
        yield drafts


def _has_csv(settings: Settings, staged: StagedTable) -> bool:
    """Whether a table is unchanged, and its CSV is still what was written from it."""
    csv = folders.csv_path(settings, staged.table)
    return staged.is_unchanged and csv.exists() and folders.sha256(csv) == staged.table_run.csv_sha256


def _run_with_csv(previous: Run | None, staged: StagedTable) -> TableRun | None:
    """What the previous run did to a table, if it left a CSV whose rows the new one may keep."""
    table_run = previous.table(staged.table.name) if previous and staged.kept is not None else None
    return table_run if table_run and table_run.csv_sha256 else None
