"""The runs of one call: layer after layer, domain after domain, under the lake's lock and in one Spark session."""

from typing import TYPE_CHECKING

from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import Fault
from pipelines.core.names import upstream_layer
from pipelines.lake import folders, run_log
from pipelines.lake.changes import MANY_SMALL_FILES
from pipelines.lake.run_log import no_complete_run
from pipelines.lake.runs import Run
from pipelines.run.begin import check_layers
from pipelines.run.bronze import run_bronze
from pipelines.run.derived import run_derived
from pipelines.run.request import Call, RunRequest
from pipelines.sources.domains import ready
from pipelines.spark.lazy import LazySession

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run_layers(
    settings: Settings, request: RunRequest, report: Report, spark: "SparkSession | None" = None
) -> tuple[list[tuple[str, Run]], list[Fault]]:
    """Runs layers, each complete before the next begins, one domain after the other. Returns the runs, by layer, and
    the faults of domains: a domain that fails keeps no other from its work. The fault of an only domain is raised.

    Without `spark`, a session starts when a layer needs one, or beside bronze if silver surely will; it ends with the
    call.
    """
    order = request.order
    if order[0] != "bronze" and not settings.layer_path(upstream_layer(order[0])).exists():
        raise no_complete_run(settings, upstream_layer(order[0]))  # before any folder is made
    runs: list[tuple[str, Run]] = []
    faults: list[Fault] = []
    with (
        folders.locked(settings, patient=request.is_micro_batch),
        LazySession(settings, spark, "silver" in order, report) as session,
    ):
        call = Call(settings, request, session, report)
        domains = request.domains or ready(settings, order[0], report)
        for domain in domains:
            try:
                check_layers(settings, domain, request.read_layers)
                for layer in order:
                    is_last = (layer, domain) == (order[-1], domains[-1])
                    runs.append((layer, _run(call, layer, domain, is_last)))
            except Fault as fault:
                if len(domains) == 1:
                    raise
                report.step(f"{domain}: {fault.kind}: {fault}", level="error", domain=domain, code=fault.code)
                faults.append(fault)
        if request.is_micro_batch:
            _compact_records(settings, order)
    return runs, faults


def _run(call: Call, layer: str, domain: str, is_last: bool) -> Run:
    return run_bronze(call, domain) if layer == "bronze" else run_derived(call, layer, domain, is_last)


def _compact_records(settings: Settings, layers: list[str]) -> None:
    """A stream makes many runs: what they record stays in few files."""
    for name in run_log.RECORDS:
        for layer in layers:
            run_log.compact(settings.layer_path(layer) / name, MANY_SMALL_FILES)
