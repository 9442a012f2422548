"""Columns of the source that no contract names, and that are not as the last run found them."""

from collections.abc import Sequence

from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault
from pipelines.lake.runs import TableRun
from pipelines.sources.postgres.reader import POSTGRES_AUDIT, ReadPlan


def drift(plan: ReadPlan, previous: TableRun) -> list[str]:
    """What changed, since the previous run, in the columns that no contract names."""
    named = {column.name for column in plan.table.columns} | set(POSTGRES_AUDIT)
    old = {column.name: column.type for column in previous.columns if column.name not in named}
    new = {name: kind for name, kind in plan.types.items() if name not in named}
    column = f"column {plan.relation.schema}.{plan.relation.name}."
    return (
        [f"{column}{name} is new: {kind}" for name, kind in new.items() if name not in old]
        + [f"{column}{name} is gone" for name in old if name not in new]
        + [f"{column}{name} was {old[name]}, is {kind}" for name, kind in new.items() if old.get(name, kind) != kind]
    )


def report_or_refuse(settings: Settings, drifted: Sequence[str], report: Report) -> None:
    """Each change is a warning. Raises ContractFault, naming all, when the schema is frozen."""
    if drifted and settings.schema_drift == "freeze":
        allowed = "set LAKEHOUSE_SCHEMA_DRIFT=evolve to take it, or name the column in its contract"
        raise ContractFault(f"{'; '.join(drifted)}; the schema is frozen: {allowed}")
    for change in drifted:
        report.warning(change)
