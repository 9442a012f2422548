"""Proves again, at any time, that source, bronze, silver, gold and CSV agree, and reports where they do not: each table
is compared with what its run recorded and with what its upstream gives (ADR 11)."""

from contextlib import ExitStack

from pyspark.sql import SparkSession

from conf.settings import Settings
from pipelines.commands.reconcile import with_lake, with_source
from pipelines.commands.reconcile.comparison import Comparison, Findings
from pipelines.core.console import Report
from pipelines.core.errors import LockedFault, QualityFault, SourceFault
from pipelines.core.grid import Grid
from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from pipelines.spark.session import session


def reconcile(settings: Settings, domains: tuple[str, ...], report: Report, spark: SparkSession | None = None) -> None:
    """Compares everything of the domains and shows the result. Raises QualityFault if lake or CSV differ from what they
    should be, SourceFault if a source could not be compared."""
    findings = Findings()
    built = [domain for domain in domains if run_log.last_run(settings.bronze_path, domain)]
    if not built:
        raise run_log.no_complete_run(settings, "bronze")
    with ExitStack() as stack:
        for domain in built:
            runs = {layer: run for layer in LAYERS if (run := run_log.last_run(settings.layer_path(layer), domain))}
            comparisons = {layer: Comparison(settings, layer, run, findings, report) for layer, run in runs.items()}
            for comparison in comparisons.values():
                with_lake.compare_with_run(comparison)
            for layer in (layer for layer in LAYERS[1:] if layer in runs):
                spark = spark or stack.enter_context(session(settings))
                with_lake.compare_with_upstream(comparisons[layer], spark)
            try:
                with_source.compare_with_source(comparisons["bronze"])
            except SourceFault as fault:
                findings.unread = fault
            if any(run_log.last_run(settings.layer_path(layer), domain) != run for layer, run in runs.items()):
                raise LockedFault("a run ended meanwhile and changed what was compared; reconcile again")
    _show(findings, report)
    if findings.differences:
        raise QualityFault(
            f"{len(findings.differences)} difference{'s' if findings.differences[1:] else ''}, listed above; "
            "`make bronze silver gold` rebuilds the lake from the source, `make export` the CSV from gold"
        )
    if findings.unread:
        raise findings.unread


def _show(findings: Findings, report: Report) -> None:
    titles = ("layer", "table", "with its run", "with upstream", "rows")
    table = Grid(titles, words=titles[:4], spare=("layer",))
    for (layer, name), (rows, with_its_run, with_its_upstream) in findings.lines.items():
        table.add_row(layer, name, with_its_run, with_its_upstream, rows)
    if findings.lines:
        report.show(table)
    for text in findings.notes:
        report.say(text)
    for text in findings.differences:
        report.say(f"difference: {text}", level="error")
    if not (findings.notes or findings.differences or findings.unread):
        report.say("everything agrees")
