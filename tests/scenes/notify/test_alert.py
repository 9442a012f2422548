"""A rule that more rows fail than may, as a run leaves it and a webhook reads it."""

from datetime import UTC, datetime

from pipelines.notify.outlets import notify
from tests.support.condominio import SALES, drop_all
from tests.support.lake import Lake
from tests.support.webhook import listening, outcome


def test_a_rule_that_more_rows_fail_than_may_is_told_once(condominio: Lake) -> None:
    drop_all(condominio, "1,1,2023-01-01,1.00", *["1,1,2024-03-01,2.00"] * 9)
    with listening() as hook:
        given = {"ALERT__WEBHOOK_URL": hook.env["LAKEHOUSE_ALERT__WEBHOOK_URL"]}
        began = datetime.now(UTC)
        high, low = (condominio.run(**given, ALERT__MAX_WARNED=limit) for limit in ("0.1", "0.09"))
        second = datetime.now(UTC)
        assert notify(high, outcome(started=began)) == [] == hook.bodies, "as many as may"
        assert notify(low, outcome(started=began)) == [] == hook.bodies, "the run before had as many"
        condominio.drop("transacoes_2.csv", SALES + "1,1,2023-01-01,3.00\n", 11)
        condominio.run()
        for targets, domain in ((("silver", "gold"), "condominio"), (("stream",), "")):
            assert notify(high, outcome(started=second, targets=targets, domain=domain)) == []
        assert notify(high, outcome(started=datetime.now(UTC))) == [], "no run of this call"
        assert notify(high, outcome(started=second, targets=("status",))) == []
    first, of_stream = hook.bodies
    warning = "silver.transacoes: 2 of 11 rows do not meet: the resident was registered before the transaction"
    assert first["warnings"] == of_stream["warnings"] == [warning]
    assert (first["status"], first["code"], first["kind"]) == ("warning", 0, "quality")
    assert first["message"] == "more rows than LAKEHOUSE_ALERT__MAX_WARNED=0.1 fail a rule"
    assert datetime.fromisoformat(first["last_success"]["condominio"]) > second.replace(microsecond=0)
