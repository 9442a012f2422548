"""The file of metrics, as Prometheus's own parser reads it."""

import shutil
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from conf.settings import Settings
from pipelines.notify.metrics import CALL, LAKE
from tests.support.lake import Lake

SUCCESS, CODE = "lakehouse_last_success_timestamp_seconds", "lakehouse_last_call_exit_code"


PROMTOOL = shutil.which("promtool")


def samples(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """The file's samples, by metric and values of labels; each metric once, with help and type."""
    text = path.read_text("utf-8")
    families = list(text_string_to_metric_families(text))
    assert all(metric.type == "gauge" and metric.documentation for metric in families)
    assert len({metric.name for metric in families}) == len(families) and {metric.name for metric in families} <= {
        *CALL,
        *LAKE,
    }
    assert path.stat().st_mode & 0o777 == 0o644 and [*path.parent.iterdir()] == [path]
    return {
        metric.name: {tuple(sample.labels.values()): sample.value for sample in metric.samples} for metric in families
    }


def measured(lakehouse: Lake, name: str = "um.prom") -> tuple[Settings, Path]:
    folder = lakehouse.folder / "metrics"
    folder.mkdir(exist_ok=True)
    return lakehouse.settings(METRICS__TEXTFILE=str(folder / name)), folder / name
