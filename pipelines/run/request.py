"""What a call asks for, and what all its runs work with."""

from collections.abc import Set
from dataclasses import dataclass

from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.names import LAYERS, downstream_layer
from pipelines.spark.lazy import LazySession


@dataclass(frozen=True)
class RunRequest:
    """The layers to run, and of which domains: all whose source is there, if none is named.

    Tables in `full` are built in full; the others apply what changed, if they can. `at_most_files` is the number of
    files that a stream's micro-batch ingests. Such a run waits until others have ended, and only warns about an
    ingested file whose content is another by now.
    """

    layers: Set[str] = frozenset(LAYERS)
    domains: tuple[str, ...] = ()
    full: frozenset[str] = frozenset()
    at_most_files: int | None = None

    @property
    def order(self) -> list[str]:
        """The layers, bronze first."""
        return [layer for layer in LAYERS if layer in self.layers]

    @property
    def read_layers(self) -> list[str]:
        """The layers that are run or read."""
        return [layer for layer in LAYERS if {layer, downstream_layer(layer)} & self.layers]

    @property
    def is_micro_batch(self) -> bool:
        return self.at_most_files is not None


@dataclass(frozen=True)
class Call:
    """What all runs of one call work with."""

    settings: Settings
    request: RunRequest
    spark: LazySession
    report: Report
