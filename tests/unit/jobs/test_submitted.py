"""What a Spark job asks of the session that it is given, and leaves in it."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.core.errors import UsageFault
from pipelines.jobs.submitted import check
from pipelines.spark.session import DELTA, SQL_NEEDS, configured


class Conf(dict[str, str]):
    def set(self, name: str, value: str) -> None:
        self[name] = value

    def unset(self, name: str) -> None:
        del self[name]


def given(zone: str = "UTC", **conf: str) -> Any:
    """A session, as far as a job looks at it."""
    java = SimpleNamespace(
        util=SimpleNamespace(TimeZone=SimpleNamespace(getDefault=lambda: SimpleNamespace(getID=lambda: zone)))
    )
    return SimpleNamespace(conf=Conf(conf), _jvm=SimpleNamespace(java=java))


def test_settings_that_results_depend_on_are_put_back() -> None:
    session = given(**{"spark.sql.extensions": DELTA, "spark.sql.session.timeZone": "America/Sao_Paulo"})
    before = dict(session.conf)
    with pytest.raises(ZeroDivisionError), configured(session, SQL_NEEDS):
        assert session.conf.items() >= SQL_NEEDS.items()
        raise ZeroDivisionError
    assert session.conf == before


@pytest.mark.parametrize(
    ("session", "mend"),
    [
        (given(), f"does not have Delta; start it with --conf spark.sql.extensions={DELTA}"),
        (
            given("America/Sao_Paulo", **{"spark.sql.extensions": DELTA}),
            "JVM of this session is in America/Sao_Paulo; start it with --driver-java-options",
        ),
    ],
)
def test_a_session_that_lacks_what_only_its_start_gives_is_refused(session: Any, mend: str) -> None:
    with pytest.raises(UsageFault, match=mend):
        check(session)
