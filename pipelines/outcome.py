"""What a call of the command line, or a stream's micro-batch, has come to: told once, to all who want to know."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from conf.settings import Settings
from pipelines.errors import Fault

UNATTENDED = {"bronze", "silver", "gold", "stream", "maintain", "reconcile"}


@dataclass(frozen=True)
class Outcome:
    """`domain`: what DOMAIN said, empty where it said nothing. `line`: what the command line says of a failure, without
    keys of rows."""

    targets: tuple[str, ...]
    domain: str
    code: int
    kind: str
    line: str
    started: datetime
    seconds: float

    @property
    def is_of_settings(self) -> bool:
        """Whether it failed before it was known where the lake is."""
        return self.kind == "settings"


def tell(settings: Settings, outcome: Outcome) -> list[str]:
    """Writes the metrics and sends the alert, where the settings ask for them and nobody waits for the call to end.
    Returns what could not be told; a run is what it is without it."""
    tasks: list[Callable[[Settings, Outcome], None]] = []
    if UNATTENDED & {*outcome.targets}:
        if settings.metrics.textfile:
            from pipelines.metrics import metrics

            tasks.append(metrics)
        if settings.alert.webhook_url:
            from pipelines.alert import alert

            tasks.append(alert)
    return [trouble for task in tasks if (trouble := _trouble(task, settings, outcome))]


def _trouble(task: Callable[[Settings, Outcome], None], settings: Settings, outcome: Outcome) -> str:
    try:
        task(settings, outcome)
    except Fault as fault:
        return str(fault)
    except Exception as error:  # without its text, which may have the webhook's address
        return f"{task.__name__}: {type(error).__name__}"
    return ""
