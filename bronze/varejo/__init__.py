"""Bronze of the retail domain: tables of AdventureWorks, each exported in full as one file."""

from conf.contract import Csv, Files


def export(name: str, *money: str) -> Files:
    """The export of a table; a newer one replaces it. The columns of `money` have a decimal comma, others a point."""
    dialect = Csv(delimiter=";", encoding="utf-8-sig", line_end="\r\n", null="NULL", decimal_comma=money)
    return Files(f"{name}.csv", dialect, replaced=True)
