"""The lake's last runs and the last call, as a file that node_exporter's textfile collector reads. No values of rows.

What a call is not about stays as an earlier call left it: the file is read before it is replaced.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.errors import Fault
from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from pipelines.lake.folders import beside, flocked, storage
from pipelines.lake.runs import Run
from pipelines.notify.outcome import Outcome

CALL_LABELS = ("lake", "call", "domain")
RUN_LABELS = ("lake", "layer", "domain")
TABLE_LABELS = (*RUN_LABELS, "table")
RULE_LABELS = (*TABLE_LABELS, "rule", "severity")

# Of the last call of a kind.
CALL = {
    "lakehouse_last_call_timestamp_seconds": ("When the last call began.", CALL_LABELS),
    "lakehouse_last_call_duration_seconds": ("How long the last call took.", CALL_LABELS),
    "lakehouse_last_call_exit_code": ("The exit code of the last call.", CALL_LABELS),
}

# Of the last complete run of a layer and domain, whatever calls did since.
LAKE = {
    "lakehouse_last_success_timestamp_seconds": ("When the last complete run ended.", RUN_LABELS),
    "lakehouse_run_duration_seconds": ("How long the last complete run of a layer took.", RUN_LABELS),
    "lakehouse_table_duration_seconds": ("How long a table took in the last complete run.", TABLE_LABELS),
    "lakehouse_table_rows": ("Rows that a table has.", TABLE_LABELS),
    "lakehouse_table_input_rows": ("Rows that a table was made from.", TABLE_LABELS),
    "lakehouse_table_set_aside_rows": ("Rows of a table that lie in quarantine.", TABLE_LABELS),
    "lakehouse_rule_tested_rows": ("Rows that a rule tested in the last complete run, if any failed it.", RULE_LABELS),
    "lakehouse_rule_failed_rows": ("Rows that failed a rule in the last complete run, if any did.", RULE_LABELS),
}

METRICS = CALL | LAKE

Sample = tuple[str, tuple[str, ...], float]  # metric, values of its labels, value


def metrics(settings: Settings, outcome: Outcome) -> None:
    """Replaces the file in one step. Raises StorageFault if its folder is missing or closed."""
    path = settings.metrics.textfile
    assert path
    registry = CollectorRegistry()
    gauges = {name: Gauge(name, text, labels, registry=registry) for name, (text, labels) in METRICS.items()}

    def set_all(samples: Iterable[Sample]) -> None:
        for name, labels, value in samples:
            gauges[name].labels(*labels).set(round(value, 3))

    # A run may write metrics while a stream does: one waits for the other.
    with storage(f"metrics file {path}"), flocked(Path(os.path.realpath(path.parent)), fcntl.LOCK_EX):
        with suppress(ValueError):  # a damaged file: what follows the damage is given up
            set_all(_earlier(path))
        set_all(_of_call(path.stem, outcome))
        with suppress(Fault):  # a damaged lake: what was known of it stays
            if not outcome.is_of_settings:
                of_lake = list(_of_lake(path.stem, settings))
                for name in LAKE:
                    gauges[name].clear()
                set_all(of_lake)
        with beside(path) as half:
            half.write_bytes(generate_latest(registry))
            half.chmod(0o644)  # node_exporter is another user
            half.replace(path)


def _earlier(path: Path) -> Iterator[Sample]:
    """The samples of the file that are ours. Raises ValueError if it is damaged."""
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else ""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            _, labels = METRICS.get(sample.name, ("", ()))
            if labels and sample.labels.keys() == {*labels}:
                yield sample.name, tuple(sample.labels[label] for label in labels), sample.value


def _of_call(lake: str, outcome: Outcome) -> Iterator[Sample]:
    kind = "run" if {*LAYERS} & {*outcome.targets} else outcome.targets[0]
    labels = (lake, kind, outcome.domain or "all")
    yield "lakehouse_last_call_timestamp_seconds", labels, outcome.started.timestamp()
    yield "lakehouse_last_call_duration_seconds", labels, outcome.seconds
    yield "lakehouse_last_call_exit_code", labels, outcome.code


def _of_lake(lake: str, settings: Settings) -> Iterator[Sample]:
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for domain in catalogue.domains():
            if run := run_log.last_run(path, domain):
                yield from _of_run((lake, layer, domain), run)
                for rule in (rule for rule in run_log.read_rules(path, run) if rule.failed):
                    labels = (lake, layer, domain, rule.table, rule.rule, rule.severity.value)
                    yield "lakehouse_rule_tested_rows", labels, rule.tested
                    yield "lakehouse_rule_failed_rows", labels, rule.failed


def _of_run(labels: tuple[str, ...], run: Run) -> Iterator[Sample]:
    yield "lakehouse_last_success_timestamp_seconds", labels, run.finished.timestamp()
    yield "lakehouse_run_duration_seconds", labels, (run.finished - run.started).total_seconds()
    for table in run.tables:
        if not table.is_beside:
            of_table = (*labels, table.name)
            yield "lakehouse_table_duration_seconds", of_table, table.seconds
            yield "lakehouse_table_rows", of_table, table.rows_out
            yield "lakehouse_table_input_rows", of_table, table.rows_in
            yield "lakehouse_table_set_aside_rows", of_table, table.set_aside
