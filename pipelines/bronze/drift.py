"""Columns of the source that no contract names, and that were not there in the last run."""

from collections.abc import Sequence

from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault


def report_or_refuse(settings: Settings, drifted: Sequence[str], report: Report) -> None:
    """Each change is a warning. Raises ContractFault, naming all, when the schema is frozen."""
    if drifted and settings.schema_drift == "freeze":
        allowed = "set LAKEHOUSE_SCHEMA_DRIFT=evolve to take it, or name the column in its contract"
        raise ContractFault(f"{'; '.join(drifted)}; the schema is frozen: {allowed}")
    for change in drifted:
        report.warning(change)
