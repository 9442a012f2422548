"""Silver accounts for every row and cent that bronze has."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from pipelines.core.errors import QualityFault
from pipelines.lake.checksums import ColumnRun
from pipelines.lake.runs import Run, TableRun
from pipelines.silver import judging
from silver.cartoes import movimento


def judged(**given: int | Decimal) -> dict[str, int | Decimal]:
    """What silver found of ten rows of movimento: eight accepted, one set aside, one copy; 10.00 reais in all."""
    rows = {"rows_in": 10, "rows_out": 8, "set_aside": 1, "copies": 1}
    sums = {"out": "8.50", "aside": "0.50", "copies": "1.00"}
    return {**rows, **{f"vlr_transacao_{side}": Decimal(total) for side, total in sums.items()}, **given}


@pytest.mark.parametrize(
    ("judgement", "message"),
    [
        (judged(rows_in=9, rows_out=7), "10 rows in bronze, 9 read, 9 accounted for"),
        (judged(copies=0), "10 rows in bronze, 10 read, 9 accounted for"),
        (judged(vlr_transacao_out=Decimal("8.51")), "the sum of vlr_transacao is not bronze's"),
        (judged(vlr_transacao_aside=Decimal(0)), "the sum of vlr_transacao is not bronze's"),
    ],
    ids=["a row not read", "a row not accounted for", "a cent too many", "an amount not set aside"],
)
def test_a_row_or_cent_that_silver_cannot_account_for_ends_the_run(judgement: dict[str, int], message: str) -> None:
    table, now = movimento.TABLE, datetime.now(UTC)
    bronze = TableRun("movimento", 0, 10, 10, columns=(ColumnRun("vlr_transacao", "decimal(10,2)", "0", "10.00"),))
    upstream = Run(1, "", "cartoes", None, "", "", now, now, (bronze,))
    with pytest.raises(QualityFault, match=message):
        judging.conserve(table, upstream, judgement)
    judging.conserve(table, upstream, judged())
