"""Reports how an unattended call ended, to metrics and to a webhook."""

from collections.abc import Callable

from conf.settings import Settings
from pipelines.core.errors import Fault
from pipelines.notify.outcome import Outcome

UNATTENDED = {"bronze", "silver", "gold", "stream", "maintain", "reconcile"}


def notify(settings: Settings, outcome: Outcome) -> list[str]:
    """Writes the metrics and sends the alert, if the settings ask for them and nobody waits for the call to end.
    Returns warnings about what could not be reported; they do not change how the call ended."""
    tasks: list[Callable[[Settings, Outcome], None]] = []
    if UNATTENDED & {*outcome.targets}:
        if settings.metrics.textfile:
            from pipelines.notify.metrics import metrics

            tasks.append(metrics)
        if settings.alert.webhook_url:
            from pipelines.notify.alert import alert

            tasks.append(alert)
    troubles = []
    for task in tasks:
        try:
            task(settings, outcome)
        except Fault as fault:
            troubles.append(str(fault))
        except Exception as error:  # without its text, which may have the webhook's address
            troubles.append(f"{task.__name__}: {type(error).__name__}")
    return troubles
