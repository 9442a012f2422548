"""What the source counts in a snapshot, which is what must arrive."""

from dataclasses import dataclass
from decimal import Decimal

import psycopg2
from psycopg2.extensions import connection as Connection

from conf.contract import is_summed
from pipelines.sources.postgres.connection import source_fault, unhurried
from pipelines.sources.postgres.reader import ReadPlan
from pipelines.sources.postgres.watchdog import Watchdog


@dataclass(frozen=True)
class SourceTotals:
    """A table in the snapshot: its rows, the sums of columns that have one, and the rows written since the last run."""

    rows: int
    sums: dict[str, Decimal]
    newer: int


def source_totals(connection: Connection, plan: ReadPlan, newer: str, watchdog: Watchdog) -> SourceTotals:
    """Lets the server count a table. `newer`: the SQL condition of the rows written since the last run, "false" for
    none. Raises SourceFault."""
    summed = {name: reading.value for name, reading in plan.readings.items() if is_summed(plan.types[name])}
    items = ["count(*)", "0" if newer == "false" else f"count(*) FILTER (WHERE {newer})"]
    items += [f"coalesce(sum({value}), 0)" for value in summed.values()]
    try:
        with watchdog.waiting(), unhurried(connection), connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(items)} FROM {plan.relation.sql}")
            rows, newer_rows, *sums = cursor.fetchone()
    except psycopg2.Error as error:
        raise source_fault(f"counting {plan.relation.schema}.{plan.relation.name}", error) from error
    return SourceTotals(rows, dict(zip(summed, sums, strict=True)), newer_rows)
