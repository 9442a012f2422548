"""What building gold leaves of a session that it was given."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipelines.gold import job as gold_job
from pipelines.spark.session import configured


class Conf(dict[str, str]):
    """The settings of a session."""

    set, unset = dict.__setitem__, dict.__delitem__


@pytest.mark.parametrize("earlier", [{}, {gold_job.NO_HINTS: "true"}, {gold_job.NO_HINTS: "false"}])
@pytest.mark.parametrize("followed", [True, False])
def test_the_joins_of_a_given_session_are_hinted_as_before(earlier: dict[str, str], followed: bool) -> None:
    conf = Conf(earlier)
    with configured(cast(Any, SimpleNamespace(conf=conf)), gold_job._hints(followed)):
        assert conf[gold_job.NO_HINTS] == str(not followed).lower()
    assert conf == earlier
