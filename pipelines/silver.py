"""Silver's job: each bronze table through its transform and its checks, into the accepted rows and the quarantine."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from conf.contract import Reference, Severity, Table
from conf.settings import Settings
from pipelines import lake, quality
from pipelines.catalogue import Entry
from pipelines.errors import QualityFault
from pipelines.lake import QUARANTINE
from pipelines.proof import Built, prove
from pipelines.quality import QUARANTINE_COLUMNS, Check, Parent
from pipelines.records import RuleRun, Run, TableRun
from pipelines.report import Report
from pipelines.spark import read, read_files, write_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Found = dict[str, Any]
FEW = 1_000_000


@dataclass(frozen=True)
class Judged:
    """The rows of a table, each with the result of every check, and the checks."""

    rows: DataFrame
    checks: list[Check]


def build(
    settings: Settings, spark: "SparkSession", upstream: Run, run: int, entries: tuple[Entry, ...], report: Report
) -> Iterator[Built]:
    """Builds the tables, parents first; of each, what became of it and of its quarantine. Raises QualityFault where
    a rule or the share set aside ends the run, and where a row or a cent is not accounted for."""
    done: dict[str, Built] = {}

    def written(name: str) -> DataFrame:
        built = done[name]
        more = QUARANTINE_COLUMNS if built.done.is_quarantine else {}
        return read_files(spark, [built.path / file for file in built.files], lake.ddl_of(built.table, more))

    for entry in entries:
        started, table = time.monotonic(), entry.table
        report.progress("silver", table.name, 0)
        judged = judge(
            settings, spark, upstream, entry, written, {name: one.done.rows_out for name, one in done.items()}
        )
        for built in _write(settings, judged, table, upstream, run, report):
            done[built.done.name] = built
            yield replace(built, done=replace(built.done, seconds=time.monotonic() - started))


def judge(
    settings: Settings,
    spark: "SparkSession",
    upstream: Run,
    entry: Entry,
    silver: Callable[[str], DataFrame],
    rows: dict[str, int],
) -> Judged:
    """A table as the bronze run `upstream` has it, through its transform and its checks.

    `silver` gives the tables built before by name, `rows` their rows.
    """
    table = entry.table
    assert entry.transform is not None
    typed = entry.transform(*(current(spark, settings, one, upstream) for one in table.inputs))
    promised = _guaranteed(upstream, table)
    found = {
        column.name: _parent(reference, column.made_from in promised, silver, rows)
        for column, reference in table.references
    }
    once = "key" in promised or not _has_double_keys(typed, table)
    folded = quality.without_copies(typed) if once else quality.fold_copies(typed, table.keys)
    return Judged(quality.judge(folded, table, found), quality.checks(table, found))


def current(spark: "SparkSession", settings: Settings, table: Table, run: Run) -> DataFrame:
    """A bronze table as the source had it when `run` read it."""
    return read(spark, lake.table_path(settings.bronze_path, table), run.table(table.name).version)


def accepted(settings: Settings, judged: Judged, table: Table) -> DataFrame:
    """The rows that silver takes, card numbers masked unless the settings say plain."""
    good = quality.accepted(judged.rows, table, judged.checks)
    return quality.mask_cards(good, table) if settings.card_numbers == "masked" else good


def _guaranteed(upstream: Run, table: Table) -> tuple[str, ...]:
    """What the source promises of a table that is made of one bronze table alone."""
    return upstream.table(table.inputs[0].name).guaranteed if len(table.inputs) == 1 else ()


def _has_double_keys(typed: DataFrame, table: Table) -> bool:
    """Whether a key comes twice; a missing one counts as a key, too."""
    rows, keys = typed.agg(F.count(F.lit(1)), F.count_distinct(F.struct(*table.keys))).first() or (0, 0)
    return bool(rows != keys)


def _parent(reference: Reference, promised: bool, silver: Callable[[str], DataFrame], rows: dict[str, int]) -> Parent:
    """The parents that a reference is tested against, sent to the rows where they are few. Where they are many and the
    source promises that they are there, only those set aside: gold proves the promise."""
    name, aside = reference.table.name, reference.table.name + QUARANTINE
    trusted = promised and not reference.columns and rows[name] + rows[aside] > FEW
    good = None if trusted else silver(name)
    bad = silver(aside) if rows[aside] else None
    if good is None and bad is None:
        return Parent(None, trusted)
    keys = quality.parents(good, bad, reference.table.keys[0], reference.columns)
    few = rows[aside] + (0 if trusted else rows[name]) <= FEW
    return Parent(F.broadcast(keys) if promised and few else keys, trusted)


def _write(
    settings: Settings, judged: Judged, table: Table, upstream: Run, run: int, report: Report
) -> Iterator[Built]:
    """Writes the rows accepted, then, in a second pass, those set aside, if any; both proved, neither committed."""
    observed = Observation(table.name)
    rows = judged.rows.observe(observed, *quality.counts(table, judged.checks))
    path = lake.table_path(settings.silver_path, table)
    files = write_files(accepted(settings, replace(judged, rows=rows), table), path, run)
    good = Built(TableRun(table.name, 0, 0, 0), table, path, lake.schema_of(table, {}), files)
    try:
        found: Found = {name: count or 0 for name, count in observed.get.items()}  # a sum over no rows is null
        counted = {name: found[name] for name in ("rows_in", "rows_out", "set_aside", "copies")}
        good = replace(good, done=TableRun(table.name, 0, **counted))
        rules = tuple(_verdicts(judged, found, table, run))
        gate(table, found, rules, settings.quality.max_quarantined)
        conserve(table, upstream, found)
        good = prove(good, lake.types_of(table, {}), table.keys, found["rows_out"], _totals(table, found, "out"))
        yield replace(good, rules=rules)
        yield _set_aside(settings, judged, table, upstream, run, found)
    except BaseException:
        good.discard()
        raise
    _say(table, found, rules, report)


def _set_aside(settings: Settings, judged: Judged, table: Table, upstream: Run, run: int, found: Found) -> Built:
    """The quarantine: a second pass over the rows, only where it is not empty."""
    path, count, files = lake.table_path(settings.silver_path, table, QUARANTINE), found["set_aside"], list[str]()
    if count:
        files = write_files(quality.quarantined(judged.rows, table, judged.checks, upstream.run), path, run)
    done = TableRun(table.name + QUARANTINE, 0, count, count)
    built = Built(done, table, path, lake.schema_of(table, QUARANTINE_COLUMNS), files)
    return prove(built, lake.types_of(table, QUARANTINE_COLUMNS), table.keys, count, _totals(table, found, "aside"))


def _verdicts(judged: Judged, found: Found, table: Table, run: int) -> Iterator[RuleRun]:
    """How each rule fared; the keys to look at cost a pass of their own, only where a rule has failed."""
    failed = {index: found[f"failed_{index}"] for index in range(len(judged.checks))}
    keys = quality.examples(judged.rows, table, judged.checks, [index for index, count in failed.items() if count])
    for index, check in enumerate(judged.checks):
        tested = found["rows_out"] if check.severity is Severity.WARN else found["rows_out"] + found["set_aside"]
        shown = keys.get(index, ())
        yield RuleRun(run, table.domain, table.name, check.name, check.severity, tested, failed[index], shown)


def _totals(table: Table, found: Found, side: str) -> dict[str, Decimal]:
    return {column.name: found[f"{column.name}_{side}"] for column in table.summed}


def gate(table: Table, found: Found, rules: tuple[RuleRun, ...], limit: float) -> None:
    """Raises QualityFault where a rule of severity fail has failed, or more than the share `limit` is set aside."""
    name, stays = f"silver.{table.name}", "silver, gold and the CSV stay as they were"
    broken = [rule for rule in rules if rule.severity is Severity.FAIL and rule.failed]
    if broken:
        raise QualityFault(f"{name}: {_listed(broken, keys=True)}; {stays}, mend the source")
    share = found["set_aside"] / found["rows_in"] if found["rows_in"] else 0
    if share > limit:
        why = _listed([rule for rule in rules if rule.severity is Severity.QUARANTINE and rule.failed], keys=True)
        raise QualityFault(
            f"{name}: {found['set_aside']:,} of {found['rows_in']:,} rows ({share:.1%}) would be set aside, more than "
            f"LAKEHOUSE_QUALITY__MAX_QUARANTINED={limit:g}: {why}; {stays}, mend the source or raise the limit"
        )


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


def _say(table: Table, found: Found, rules: tuple[RuleRun, ...], report: Report) -> None:
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
