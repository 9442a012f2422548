"""The file of metrics, as Prometheus's own parser reads it."""

import shutil
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from conf.settings import Settings
from pipelines.notify.metrics import METRICS
from tests.support.lake import Lake

SUCCESS, CODE = "lakehouse_last_success_timestamp_seconds", "lakehouse_last_call_exit_code"


PROMTOOL = shutil.which("promtool")


def samples(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """The file's samples, by metric and values of labels; each metric once, with help and type."""
    text = path.read_text("utf-8")
    families = list(text_string_to_metric_families(text))
    assert all(metric.type == "gauge" and metric.documentation for metric in families)
    names = {metric.name for metric in families}
    assert len(names) == len(families) and names <= {*METRICS}
    assert path.stat().st_mode & 0o777 == 0o644 and [*path.parent.iterdir()] == [path]
    return {metric.name: {values(sample): sample.value for sample in metric.samples} for metric in families}


def values(sample: Sample) -> tuple[str, ...]:
    """The values of a sample's labels, in the order in which the metric names them."""
    _, labels = METRICS[sample.name]
    assert sample.labels.keys() == {*labels}
    return tuple(sample.labels[label] for label in labels)


def measured(lakehouse: Lake, name: str = "um.prom") -> tuple[Settings, Path]:
    folder = lakehouse.folder / "metrics"
    folder.mkdir(exist_ok=True)
    return lakehouse.settings(METRICS__TEXTFILE=str(folder / name)), folder / name
