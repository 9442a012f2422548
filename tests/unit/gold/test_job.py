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
@pytest.mark.parametrize("joins", [{gold_job.NO_HINTS: "true"}, {gold_job.NO_HINTS: "false"}, gold_job.ONLY_SHUFFLES])
def test_the_joins_of_a_given_session_are_hinted_as_before(earlier: dict[str, str], joins: dict[str, str]) -> None:
    conf = Conf(earlier)
    with configured(cast(Any, SimpleNamespace(conf=conf)), joins):
        assert conf == joins
    assert conf == earlier
