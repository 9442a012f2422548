"""Judges rows of bronze: which silver accepts, what it counts on the way, when it refuses the run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Reference, Severity, Table
from conf.settings import Settings
from pipelines.core.catalogue import Entry
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.core.names import QUARANTINE
from pipelines.lake.runs import RuleRun, Run
from pipelines.silver import checks as silver_checks
from pipelines.silver.checks import Check, Parent

Found = dict[str, Any]


FEW = 1_000_000


@dataclass(frozen=True)
class CheckedRows:
    """The rows of a table, each with the result of every check, and the checks."""

    rows: DataFrame
    checks: list[Check]


@dataclass(frozen=True)
class BronzeFacts:
    """What DuckDB saw in bronze: the columns whose promised reference is kept, and whether a value was rescued."""

    kept: frozenset[str]
    rescued: bool


def check_rows(
    upstream: Run,
    entry: Entry,
    bronze: list[DataFrame],
    silver: Callable[[str], DataFrame],
    rows: dict[str, int],
    seen: BronzeFacts | None = None,
) -> CheckedRows:
    """Rows of bronze, all or some that `upstream` has, through a table's transform and its checks.

    `silver` gives the tables built before by name, `rows` their rows; `seen` is None where nobody looked.
    """
    table = entry.table
    assert entry.transform is not None
    typed = entry.transform(*bronze)
    promised = guaranteed(upstream, table)
    found = {
        column.name: _parent(
            reference, column.made_from in promised, column.name in seen.kept if seen else None, silver, rows
        )
        for column, reference in table.references
    }
    once = "key" in promised or not _has_double_keys(typed, table)
    folded = silver_checks.without_copies(typed) if once else silver_checks.fold_copies(typed, table.keys)
    checks = silver_checks.checks(table, found, copies=not once, rescued=seen is None or seen.rescued)
    return CheckedRows(silver_checks.apply_checks(folded, table, found, checks), checks)


def accepted(settings: Settings, judged: CheckedRows, table: Table) -> DataFrame:
    """The rows that silver takes, card numbers masked unless the settings say plain."""
    good = silver_checks.accepted(judged.rows, table, judged.checks)
    return silver_checks.mask_cards(good, table) if settings.card_numbers == "masked" else good


def guaranteed(upstream: Run, table: Table) -> tuple[str, ...]:
    """What the source promises of a table that is made of one bronze table alone."""
    return upstream.table(table.inputs[0].name).guaranteed if len(table.inputs) == 1 else ()


def _has_double_keys(typed: DataFrame, table: Table) -> bool:
    """Whether a key comes twice; a missing one counts as a key, too."""
    rows, keys = typed.agg(F.count(F.lit(1)), F.count_distinct(F.struct(*table.keys))).first() or (0, 0)
    return bool(rows != keys)


def _parent(
    reference: Reference, promised: bool, kept: bool | None, silver: Callable[[str], DataFrame], rows: dict[str, int]
) -> Parent:
    """The parents that a reference is tested against, sent to the rows where they are few. Only those set aside, where
    the source promises that they are there and keeps it, or nobody looked and they are many: gold proves the promise.
    """
    name, aside = reference.table.name, reference.table.name + QUARANTINE
    many = rows[name] + rows[aside] > FEW
    trusted = promised and not reference.columns and (many if kept is None else kept)
    good = None if trusted else silver(name)
    bad = silver(aside) if rows[aside] else None
    if good is None and bad is None:
        return Parent(None, trusted)
    keys = silver_checks.parents(good, bad, reference)
    few = rows[aside] + (0 if trusted else rows[name]) <= FEW
    return Parent(F.broadcast(keys) if promised and few else keys, trusted)


def verdicts(
    judged: CheckedRows, found: Found, table: Table, run: int, here: Found, known: Mapping[str, tuple[str, ...]]
) -> Iterator[RuleRun]:
    """How each rule fared in all rows; the keys to look at cost a pass of their own, only where a rule has failed in
    those judged, as `here` counts them. `known` has keys of others that failed, by rule."""
    failed = {index: found.get(f"failed_{index}", 0) for index in range(len(judged.checks))}
    some = [index for index in failed if here.get(f"failed_{index}")]
    keys = silver_checks.examples(judged.rows, table, judged.checks, some)
    for index, check in enumerate(judged.checks):
        tested = found["rows_out"] if check.severity is Severity.WARN else found["rows_out"] + found["set_aside"]
        shown = tuple(sorted({*keys.get(index, ()), *known.get(check.name, ())}, key=_in_order))[
            : silver_checks.EXAMPLES
        ]
        yield RuleRun(run, table.domain, table.name, check.name, check.severity, tested, failed[index], shown)


def _in_order(key: str) -> tuple[tuple[int, str], ...]:
    """Numbers by their size: the shorter ones first."""
    return tuple((len(part), part) for part in key.split(", "))


def totals(table: Table, found: Found, side: str) -> dict[str, Decimal]:
    return {column.name: found[f"{column.name}_{side}"] for column in table.summed}


def gate(table: Table, found: Found, rules: tuple[RuleRun, ...], limit: float) -> None:
    """Raises QualityFault where a rule of severity fail has failed, or more than the share `limit` is set aside."""
    name, stays = f"silver.{table.name}", "silver, gold and the CSV stay as they were"
    broken = [rule for rule in rules if rule.severity is Severity.FAIL and rule.failed]
    if broken:
        told, said = (f"{name}: {_listed(broken, keys)}; {stays}, mend the source" for keys in (False, True))
        raise QualityFault(said, told)
    share = found["set_aside"] / found["rows_in"] if found["rows_in"] else 0
    if share > limit:
        why = [rule for rule in rules if rule.severity is Severity.QUARANTINE and rule.failed]
        told, said = (
            f"{name}: {found['set_aside']:,} of {found['rows_in']:,} rows ({share:.1%}) would be set aside, more than "
            f"LAKEHOUSE_QUALITY__MAX_QUARANTINED={limit:g}: {_listed(why, keys)}; {stays}, mend the source or raise "
            "the limit"
            for keys in (False, True)
        )
        raise QualityFault(said, told)


def _listed(rules: list[RuleRun], keys: bool = False) -> str:
    return ", ".join(
        f"{rule.rule} {rule.failed:,}" + (f" (key {'; '.join(rule.keys)})" if keys and rule.keys else "")
        for rule in rules
    )


def conserve(table: Table, upstream: Run, found: Found) -> None:
    """Rows, and the sums of amounts, in = accepted + quarantined + identical copies; raises QualityFault otherwise."""
    inputs = [upstream.table(one.name) for one in table.inputs]
    read_rows = sum(one.rows_out for one in inputs)
    accounted = found["rows_out"] + found["set_aside"] + found["copies"]
    if not read_rows == found["rows_in"] == accounted:
        raise QualityFault(
            f"silver.{table.name}: {read_rows} rows in bronze, {found['rows_in']} read, {accounted} accounted for; "
            "silver was left as it was, run it again"
        )
    for column in table.summed:
        totals = [one.totals[column.made_from] for one in inputs if column.made_from in one.totals]
        sides = sum((found[f"{column.name}_{side}"] for side in ("out", "aside", "copies")), Decimal(0))
        if len(totals) == 1 and totals[0] != sides:
            raise QualityFault(
                f"silver.{table.name}: the sum of {column.name} is not bronze's; silver stays as it was, run it again"
            )


def report_quality(table: Table, found: Found, rules: tuple[RuleRun, ...], report: Report) -> None:
    """What a person should know of the table: set aside, by reason; copies; warnings."""
    name = f"silver.{table.name}"
    failed = [rule for rule in rules if rule.failed]
    if found["set_aside"]:
        why = _listed([rule for rule in failed if rule.severity is Severity.QUARANTINE])
        report.warning(f"{name}: {found['set_aside']:,} rows set aside in {name}{QUARANTINE}: {why}")
    if found["copies"]:
        report.warning(f"{name}: {found['copies']:,} identical copies counted once")
    for rule in failed:
        if rule.severity is Severity.WARN:
            report.warning(f"{name}: {rule.failed:,} of {rule.tested:,} rows do not meet: {rule.rule}")
