"""Silver accounts for every row and cent that bronze has."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from pipelines.core.errors import QualityFault
from pipelines.lake.checksums import ColumnRun
from pipelines.lake.runs import Run, TableRun
from pipelines.silver import judging
from pipelines.silver.judging import Counts
from silver.cartoes import movimento


def amount(total: str) -> dict[str, Decimal]:
    return {"vlr_transacao": Decimal(total)}


# Ten rows of movimento: eight accepted, one set aside, one copy; 10.00 reais in all.
COUNTS = Counts(10, 8, 1, 1, amount("8.50"), amount("0.50"), amount("1.00"), {"not 13": 1})


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (replace(COUNTS, rows_in=9, rows_out=7), "10 rows in bronze, 9 read, 9 accounted for"),
        (replace(COUNTS, copies=0), "10 rows in bronze, 10 read, 9 accounted for"),
        (
            replace(COUNTS, sums_out=amount("8.51")),
            "the sum of vlr_transacao is not bronze's",
        ),
        (
            replace(COUNTS, sums_aside={}),
            "the sum of vlr_transacao is not bronze's",
        ),
    ],
    ids=["a row not read", "a row not accounted for", "a cent too many", "an amount not set aside"],
)
def test_a_row_or_cent_that_silver_cannot_account_for_ends_the_run(counts: Counts, message: str) -> None:
    table, now = movimento.TABLE, datetime.now(UTC)
    bronze = TableRun("movimento", 0, 10, 10, columns=(ColumnRun("vlr_transacao", "decimal(10,2)", "0", "10.00"),))
    upstream = Run(1, "", "cartoes", None, "", "", now, now, (bronze,))
    with pytest.raises(QualityFault, match=message):
        judging.conserve(table, upstream, counts)
    judging.conserve(table, upstream, COUNTS)


def test_counts_of_changed_rows_correct_those_of_all_rows() -> None:
    old = Counts(2, 1, 1, 0, amount("1.00"), amount("0.50"), failures={"not 13": 1})
    new = Counts(1, 1, 0, 0, amount("3.00"), failures={"short note": 1})
    failures = {"not 13": 0, "short note": 1}
    expected = Counts(9, 8, 0, 1, amount("10.50"), amount("0.00"), amount("1.00"), failures)
    assert COUNTS.after(gone=old, came=new) == expected
    assert COUNTS.after(gone=Counts(), came=Counts()) == COUNTS
