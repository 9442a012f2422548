"""Why a table is built in full, whatever changed."""

from datetime import datetime, timedelta

from conf.settings import Settings
from pipelines.core.identity import software
from pipelines.lake.runs import Run, RunContext, TableRun, table_runs

MUCH = "much of it changed"


NIGHT = timedelta(hours=12)


def reason_for_full(settings: Settings, table_run: TableRun | None, asked: bool, now: datetime) -> str:
    """Why a table is built in full, whatever changed: the first time, asked for, or the last time is long ago (some
    hours early, so that a nightly run is never late). Empty when none of it holds."""
    if table_run is None:
        return "the first time"
    if asked:
        return "asked for"
    if table_run.full_at and timedelta(0) <= now - table_run.full_at <= timedelta(days=settings.full_days) - NIGHT:
        return ""
    return f"LAKEHOUSE_FULL_DAYS={settings.full_days} have passed"


def reason_for_full_derived(settings: Settings, call: RunContext, origin: Run | None, name: str) -> str:
    """Why a table of silver or gold is built in full, whatever changed; `origin` is the run its last version is of."""
    previous = call.previous
    table_run = table_runs(previous).get(name)
    if why := reason_for_full(settings, table_run, name in call.full, call.run.started):
        return why
    if previous and previous.software != software(previous.domain):
        return "this software changed"
    if previous and previous.card_numbers != settings.card_numbers:
        return "LAKEHOUSE_CARD_NUMBERS changed"
    return "" if origin else "the run that it was built from is gone"
