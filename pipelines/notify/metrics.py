"""The lake's last runs and the last call, as a file that node_exporter's textfile collector reads. No values of rows.

What a call is not about stays as an earlier one left it: the file is read before it is replaced.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.errors import Fault
from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from pipelines.lake.folders import storage
from pipelines.notify.outcome import Outcome

# Of a call: its kind and DOMAIN are labels.
CALL = {
    "lakehouse_last_call_timestamp_seconds": "When the last call began.",
    "lakehouse_last_call_duration_seconds": "How long the last call took.",
    "lakehouse_last_call_exit_code": "The exit code of the last call.",
}


# Of the last complete run of a layer and domain, whatever calls did since.
LAKE = {
    "lakehouse_last_success_timestamp_seconds": "When the last complete run ended.",
    "lakehouse_run_duration_seconds": "How long the last complete run of a layer took.",
    "lakehouse_table_duration_seconds": "How long a table took in the last complete run.",
    "lakehouse_table_rows": "Rows that a table has.",
    "lakehouse_table_input_rows": "Rows that a table was made from.",
    "lakehouse_table_set_aside_rows": "Rows of a table that lie in quarantine.",
    "lakehouse_rule_tested_rows": "Rows that a rule tested, where some failed it, in the last complete run.",
    "lakehouse_rule_failed_rows": "Rows that failed a rule, where some did, in the last complete run.",
}


SAMPLE = re.compile(r"(\w+)\{(.*)\} (\S+)")


Samples = dict[tuple[str, str], str]  # (metric, labels) to value


def metrics(settings: Settings, outcome: Outcome) -> None:
    """Replaces the file, in one step. Raises StorageFault where its folder is missing or closed."""
    path = settings.metrics.textfile
    assert path
    with storage(f"metrics file {path}"), _alone(path.parent):
        samples = _read(path) | _of_call(path.stem, outcome)
        try:
            if not outcome.is_of_settings:
                of_lake = _of_lake(path.stem, settings)
                samples = {key: value for key, value in samples.items() if key[0] in CALL} | of_lake
        except Fault:
            pass  # a damaged lake: what was known of it stays
        _replace(path, _text(samples))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Beside a stream's metrics a run's are written, too: one after the other."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _read(path: Path) -> Samples:
    """The samples that the file has, those that are ours."""
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    found = (match.groups() for line in lines if (match := SAMPLE.fullmatch(line)))
    return {(name, labels): value for name, labels, value in found if name in CALL or name in LAKE}


def _of_call(lake: str, outcome: Outcome) -> Samples:
    layers = {*LAYERS} & {*outcome.targets}
    kind = "run" if layers else outcome.targets[0]
    labels = _labels(lake=lake, call=kind, domain=outcome.domain or "all")
    values = (outcome.started.timestamp(), outcome.seconds, outcome.code)
    return {(name, labels): _number(value) for name, value in zip(CALL, values, strict=True)}


def _of_lake(lake: str, settings: Settings) -> Samples:
    samples: Samples = {}
    for layer in LAYERS:
        for domain in catalogue.domains():
            if not (run := run_log.last_run(settings.layer_path(layer), domain)):
                continue
            labels = {"lake": lake, "layer": layer, "domain": domain}

            def add(name: str, value: float, **more: str) -> None:
                samples[name, _labels(**labels, **more)] = _number(value)  # noqa: B023, it is called here only

            add("lakehouse_last_success_timestamp_seconds", run.finished.timestamp())
            add("lakehouse_run_duration_seconds", (run.finished - run.started).total_seconds())
            for table in (one for one in run.tables if not one.is_beside):
                add("lakehouse_table_duration_seconds", table.seconds, table=table.name)
                add("lakehouse_table_rows", table.rows_out, table=table.name)
                add("lakehouse_table_input_rows", table.rows_in, table=table.name)
                add("lakehouse_table_set_aside_rows", table.set_aside, table=table.name)
            for rule in (one for one in run_log.read_rules(settings.layer_path(layer), run) if one.failed):
                more = {"table": rule.table, "rule": rule.rule, "severity": rule.severity.value}
                add("lakehouse_rule_tested_rows", rule.tested, **more)
                add("lakehouse_rule_failed_rows", rule.failed, **more)
    return samples


def _labels(**labels: str) -> str:
    escapes = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items())


def _number(value: float) -> str:
    return f"{round(value, 3):.15g}"


def _text(samples: Samples) -> str:
    """The exposition format, version 0.0.4: the samples of a metric in one block."""
    lines = []
    for name, meaning in (CALL | LAKE).items():
        some = [f"{name}{{{labels}}} {value}" for (of, labels), value in samples.items() if of == name]
        lines += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", *some] if some else []
    return "\n".join(lines) + "\n"


def _replace(path: Path, text: str) -> None:
    """Nobody sees half a file, and node_exporter, another user, may read it."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink()
        raise
