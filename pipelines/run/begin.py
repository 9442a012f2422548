"""The begin of a run: its number, what it stands on, and what would make it unsafe to go on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from conf.settings import Settings
from pipelines.core.errors import StorageFault, UsageFault
from pipelines.core.names import EMBEDDED, LAYERS, downstream_layer, upstream_layer
from pipelines.lake import run_log
from pipelines.lake.runs import Run


def check_layers(settings: Settings, domain: str, layers: Sequence[str] = LAYERS) -> None:
    """Raises StorageFault where a table, or the record of a run, is not as the last complete runs left it."""
    for layer in layers:
        path = settings.layer_path(layer)
        run = run_log.last_run(path, domain)
        downstream = downstream_layer(layer)
        below = run_log.last_run(settings.layer_path(downstream), domain) if downstream else None
        if run and below and run.lake == below.lake and run.run < (below.upstream_run or 0):
            said = f"run {below.upstream_run}, from which {downstream} was built, is missing"
            raise StorageFault(f"table {path / run_log.RUNS}: {said}; restore it from a backup, or delete {path}")
        if run:
            run_log.check_tables(layer, path, run)


def origin_of(settings: Settings, layer: str, previous: Run | None) -> Run | None:
    """The run that a layer's last run was built from, where all it left is still there."""
    before = upstream_layer(layer)
    run = run_log.upstream_of(settings.layer_path(before), previous)
    try:
        if run:
            run_log.check_tables(before, settings.layer_path(before), run)
        return run
    except StorageFault:
        return None


def next_run(settings: Settings, layer: str, domain: str, lake_id: str, upstream: int | None, source: str) -> Run:
    """A run that begins. Its number is above those of the layer and those that the layer below was built from, whatever
    the clock says."""
    downstream = downstream_layer(layer)
    numbers = [run.run for run in run_log.heads(settings.layer_path(layer))]
    if downstream:
        numbers += [run.upstream_run or 0 for run in run_log.heads(settings.layer_path(downstream))]
    now = datetime.now(UTC)
    return Run(max(numbers, default=0) + 1, lake_id, domain, upstream, source, "", now, now)


def refuse_other_source(layer: str, path: Path, previous: Run | None, source: str) -> None:
    """Fake members never replace real ones, nor the reverse. Raises UsageFault naming both sources."""
    if previous and (previous.source == EMBEDDED) != (source == EMBEDDED):
        was, now = (f"the {name} server" if name == EMBEDDED else name for name in (previous.source, source))
        raise UsageFault(
            f"{layer} in {path} was filled from {was}, and would now be filled from {now}; "
            "name the right PostgreSQL, or another lake with LAKEHOUSE_ROOT, or begin anew with `make reset`"
        )
