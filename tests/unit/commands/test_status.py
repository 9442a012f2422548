"""How `status` and `quality` say ages and show rows."""

from datetime import UTC, datetime, timedelta

import pytest

from conf.contract import Severity
from pipelines.commands import status as commands_status
from pipelines.lake.runs import RuleRun


@pytest.mark.parametrize(
    ("minutes", "message"),
    [(0, "0 min"), (59, "59 min"), (60, "1 h 0 min"), (312, "5 h 12 min"), (1440, "1 d 0 h"), (4600, "3 d 4 h")],
)
def test_ages_are_written_in_minutes_hours_or_days(minutes: int, message: str) -> None:
    assert (
        commands_status.age(datetime.now(UTC) - (datetime.now(UTC) - timedelta(minutes=minutes, seconds=30))) == message
    )


def test_the_query_shows_what_was_set_aside_before_what_is_merely_odd() -> None:
    odd = RuleRun(1, "cartoes", "cartao", "odd", Severity.WARN, 10, 9, ("1", "2"))
    bad = RuleRun(1, "cartoes", "conta", "it's bad", Severity.QUARANTINE, 10, 1, ("7",))
    fine = RuleRun(1, "cartoes", "conta", "fine", Severity.QUARANTINE, 10, 0)
    assert "conta__quarantine\nWHERE array_contains(_reasons, 'it\\'s bad')" in commands_status.query([fine, odd, bad])
    assert "silver.cartao\nWHERE id_cartao IN (1, 2)" in commands_status.query([odd, fine])
    assert commands_status.query([fine]) == "no row failed a rule"
