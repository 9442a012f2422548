"""The begin of a run: its number, what it builds on, and what would make it unsafe to go on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from conf.settings import Settings
from pipelines.core.errors import StorageFault, UsageFault
from pipelines.core.names import EMBEDDED, LAYERS, downstream_layer, upstream_layer
from pipelines.lake import run_log
from pipelines.lake.runs import Run


def check_layers(settings: Settings, domain: str, layers: Sequence[str] = LAYERS) -> None:
    """Raises StorageFault if a table, or the record of a run, is not as the last complete runs left it."""
    for layer in layers:
        path = settings.layer_path(layer)
        if (run := run_log.last_run(path, domain)) is None:
            continue
        if (downstream := downstream_layer(layer)) is not None:
            derived = run_log.last_run(settings.layer_path(downstream), domain)
            if derived and derived.lake == run.lake and (derived.upstream_run or 0) > run.run:
                missing = f"run {derived.upstream_run}, from which {downstream} was built, is missing"
                raise StorageFault(
                    f"table {path / run_log.RUNS}: {missing}; restore it from a backup, or delete {path}"
                )
        run_log.check_tables(layer, path, run)


def origin_of(settings: Settings, layer: str, previous: Run | None) -> Run | None:
    """The run that a layer's previous run was built from; None if its files are gone."""
    upstream = upstream_layer(layer)
    path = settings.layer_path(upstream)
    run = run_log.upstream_of(path, previous)
    try:
        if run:
            run_log.check_tables(upstream, path, run)
        return run
    except StorageFault:
        return None


def next_run(settings: Settings, layer: str, domain: str) -> Run:
    """A run that begins now, without a source yet. Its number is above those of the layer's runs and above those that
    the layer downstream was built from, whatever the clock says."""
    numbers = [run.run for run in run_log.heads(settings.layer_path(layer))]
    if (downstream := downstream_layer(layer)) is not None:
        numbers += [run.upstream_run or 0 for run in run_log.heads(settings.layer_path(downstream))]
    now = datetime.now(UTC)
    return Run(max(numbers, default=0) + 1, "", domain, None, "", "", now, now)


def refuse_other_source(layer: str, path: Path, previous: Run | None, source: str) -> None:
    """Fake members never replace real ones, nor the reverse. Raises UsageFault naming both sources."""
    if previous and (previous.source == EMBEDDED) != (source == EMBEDDED):
        filled, now = (f"the {name} server" if name == EMBEDDED else name for name in (previous.source, source))
        raise UsageFault(
            f"{layer} in {path} was filled from {filled}, and would now be filled from {now}; "
            "name the right PostgreSQL, or another lake with LAKEHOUSE_ROOT, or start over with `make reset`"
        )
