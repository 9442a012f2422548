"""Judges rows of bronze: which rows silver accepts, how each rule fared, when a run is refused."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Reference, Severity, Table
from conf.settings import Settings
from pipelines.core.catalogue import Entry
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.core.names import QUARANTINE
from pipelines.lake.runs import RuleRun, Run
from pipelines.lake.versions import StagedTable
from pipelines.silver import checks
from pipelines.silver.checks import Assumptions, CheckedRows, Parent
from pipelines.silver.counts import Counts
from pipelines.spark.frames import read

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

BROADCAST_ROWS = 1_000_000  # parents up to so many are sent to their children


@dataclass(frozen=True)
class SilverTables:
    """Silver's tables and their quarantines by name: their rows as a frame, and how many they have."""

    frame: Callable[[str], DataFrame]
    rows: Mapping[str, int]


def staged_tables(spark: "SparkSession", staged: Mapping[str, StagedTable]) -> SilverTables:
    """The tables that this run has built, none of them committed."""
    rows = {name: built.table_run.rows_out for name, built in staged.items()}
    return SilverTables(lambda name: read(spark, staged[name].content), rows)


@dataclass(frozen=True)
class BronzeFacts:
    """What DuckDB found in bronze: the columns in which each value refers to a parent that is there, and whether a
    value was rescued."""

    kept_references: frozenset[str]
    has_rescued: bool


def check_rows(
    upstream: Run, entry: Entry, bronze: list[DataFrame], silver: SilverTables, facts: BronzeFacts | None = None
) -> CheckedRows:
    """Rows of bronze, all or some that `upstream` has, through a table's transform and its checks.

    `silver` has the tables that this one refers to; `facts` is None if nobody looked into bronze.
    """
    table = entry.table
    assert entry.transform is not None
    typed, promised = entry.transform(*bronze), guaranteed(upstream, table)

    def parent(column: str, source: str, reference: Reference) -> Parent:
        kept = column in facts.kept_references if facts else None
        return _parent(reference, source in promised, kept, silver)

    parents = {column.name: parent(column.name, column.made_from, reference) for column, reference in table.references}
    unique_keys = "key" in promised or not _has_double_keys(typed, table)
    nothing_rescued = facts is not None and not facts.has_rescued
    return checks.apply_checks(typed, table, Assumptions(parents, unique_keys, nothing_rescued))


def accepted(settings: Settings, checked: CheckedRows) -> DataFrame:
    """The rows that silver takes, card numbers masked unless the settings say plain."""
    rows = checks.accepted(checked)
    return checks.mask_cards(rows, checked.table) if settings.card_numbers == "masked" else rows


def guaranteed(upstream: Run, table: Table) -> tuple[str, ...]:
    """What the source promises of a table that is made of a single bronze table."""
    return upstream.table(table.inputs[0].name).guaranteed if len(table.inputs) == 1 else ()


def _has_double_keys(typed: DataFrame, table: Table) -> bool:
    """Whether a key comes twice; a missing one counts as a key, too."""
    rows, keys = typed.agg(F.count(F.lit(1)), F.count_distinct(F.struct(*table.keys))).first() or (0, 0)
    return bool(rows != keys)


def _parent(reference: Reference, promised: bool, kept: bool | None, silver: SilverTables) -> Parent:
    """The parents that a reference is tested against, broadcast if they are few.

    Each parent is taken to be there if the source promises it, and DuckDB found that it keeps this, or nobody looked
    and parents are many; gold proves the promise. Then only those in quarantine are needed.
    """
    name, aside = reference.table.name, reference.table.name + QUARANTINE
    many = silver.rows[name] + silver.rows[aside] > BROADCAST_ROWS
    trusted = promised and not reference.columns and (many if kept is None else kept)
    good = None if trusted else silver.frame(name)
    bad = silver.frame(aside) if silver.rows[aside] else None
    if good is None and bad is None:
        return Parent(None, guaranteed=True)
    keys = checks.parent_keys(good, bad, reference)
    few = silver.rows[aside] + (0 if trusted else silver.rows[name]) <= BROADCAST_ROWS
    return Parent(F.broadcast(keys) if promised and few else keys, trusted)


def rule_runs(
    run: int, checked: CheckedRows, counts: Counts, newly: Counts, known_keys: Mapping[str, tuple[str, ...]]
) -> Iterator[RuleRun]:
    """How each rule fared in all rows of a table, which `counts` has.

    Example keys cost a pass over `checked`, made only if these rows, counted by `newly`, fail a rule. `known_keys` are
    those of other rows that fail, by rule.
    """
    table = checked.table
    examples = checks.examples(checked, [check for check in checked.checks if newly.failed(check.name)])
    for check in checked.checks:
        tested = counts.rows_out if check.severity is Severity.WARN else counts.rows_out + counts.set_aside
        keys = sorted({*examples.get(check.name, ()), *known_keys.get(check.name, ())}, key=_by_size)
        failed, shown = counts.failed(check.name), tuple(keys[: checks.EXAMPLES])
        yield RuleRun(run, table.domain, table.name, check.name, check.severity, tested, failed, shown)


def _by_size(key: str) -> tuple[tuple[int, str], ...]:
    """Sorts numbers by their size: shorter ones first."""
    return tuple((len(part), part) for part in key.split(", "))


def gate(table: Table, counts: Counts, rules: tuple[RuleRun, ...], limit: float) -> None:
    """Raises QualityFault if a rule of severity fail has failed, or more than the share `limit` is set aside."""
    name, stays = f"silver.{table.name}", "silver, gold and the CSV stay as they were"
    broken = [rule for rule in rules if rule.severity is Severity.FAIL and rule.failed]
    if broken:
        without_keys, text = (f"{name}: {_listed(broken, keys)}; {stays}, correct the source" for keys in (False, True))
        raise QualityFault(text, without_keys)
    share = counts.set_aside / counts.rows_in if counts.rows_in else 0
    if share > limit:
        reasons = [rule for rule in rules if rule.severity is Severity.QUARANTINE and rule.failed]
        without_keys, text = (
            f"{name}: {counts.set_aside:,} of {counts.rows_in:,} rows ({share:.1%}) would be set aside, more than "
            f"LAKEHOUSE_QUALITY__MAX_QUARANTINED={limit:g}: {_listed(reasons, keys)}; {stays}, correct the source or "
            "raise the limit"
            for keys in (False, True)
        )
        raise QualityFault(text, without_keys)


def _listed(rules: list[RuleRun], keys: bool = False) -> str:
    return ", ".join(
        f"{rule.rule} {rule.failed:,}" + (f" (key {'; '.join(rule.keys)})" if keys and rule.keys else "")
        for rule in rules
    )


def conserve(table: Table, upstream: Run, counts: Counts) -> None:
    """Rows, and the sums of amounts, in = accepted + quarantined + identical copies; raises QualityFault otherwise."""
    inputs = [upstream.table(source.name) for source in table.inputs]
    in_bronze = sum(table_run.rows_out for table_run in inputs)
    accounted = counts.rows_out + counts.set_aside + counts.copies
    if not in_bronze == counts.rows_in == accounted:
        raise QualityFault(
            f"silver.{table.name}: {in_bronze} rows in bronze, {counts.rows_in} read, {accounted} accounted for; "
            "silver stays as it was, run it again"
        )
    for column in table.summed:
        totals = [table_run.totals[column.made_from] for table_run in inputs if column.made_from in table_run.totals]
        sums = counts.sums[column.name]
        if len(totals) == 1 and totals[0] != sums.out + sums.aside + sums.copies:
            raise QualityFault(
                f"silver.{table.name}: the sum of {column.name} is not bronze's; silver stays as it was, run it again"
            )


def report_quality(table: Table, counts: Counts, rules: tuple[RuleRun, ...], report: Report) -> None:
    """Warns of rows set aside, by reason, of copies, and of rules that rows do not meet."""
    name = f"silver.{table.name}"
    failed = [rule for rule in rules if rule.failed]
    if counts.set_aside:
        reasons = _listed([rule for rule in failed if rule.severity is Severity.QUARANTINE])
        report.warning(f"{name}: {counts.set_aside:,} rows set aside in {name}{QUARANTINE}: {reasons}")
    if counts.copies:
        report.warning(f"{name}: {counts.copies:,} identical copies counted once")
    for rule in failed:
        if rule.severity is Severity.WARN:
            report.warning(f"{name}: {rule.failed:,} of {rule.tested:,} rows do not meet: {rule.rule}")
