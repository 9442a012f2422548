"""Judges rows of bronze: which ones silver accepts, what it counts of them, how each rule fared, what ends a run."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from conf.contract import Reference, Severity, Table
from conf.settings import Settings
from pipelines.core.catalogue import Entry, tables_of
from pipelines.core.console import Report
from pipelines.core.contracts import file_of
from pipelines.core.errors import QualityFault
from pipelines.core.names import QUARANTINE
from pipelines.lake.engine import Engine, save, within
from pipelines.lake.runs import Job, RuleRun, Run, TableRun, table_runs
from pipelines.lake.versions import StagedTable, table_version, unchanged_table
from pipelines.silver import checks
from pipelines.silver.checks import COPIES, Assumptions, CheckedRows, Parent
from pipelines.spark import analysis, remote
from pipelines.spark.frames import read, read_files

BROADCAST_ROWS = 1_000_000  # parents up to so many are sent to their children


@dataclass(frozen=True)
class Counts:
    """rows_in = rows_out + set_aside + copies. The sums of amounts, by column, are those of the accepted rows, of the
    rows set aside, and of the copies that count once. `failures`: by the name of the rule, where a warning only counts
    accepted rows. A name that is missing counts as zero."""

    rows_in: int = 0
    rows_out: int = 0
    set_aside: int = 0
    copies: int = 0
    sums_out: Mapping[str, Decimal] = field(default_factory=dict)
    sums_aside: Mapping[str, Decimal] = field(default_factory=dict)
    sums_copies: Mapping[str, Decimal] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)

    def after(self, gone: "Counts", came: "Counts") -> "Counts":
        """The counts when some of the rows have gone and others have come."""

        def corrected(known: Any, less: Any, more: Any) -> Any:
            if isinstance(known, int):
                return known - less + more
            names = {**known, **less, **more}
            return {name: known.get(name, 0) - less.get(name, 0) + more.get(name, 0) for name in names}

        return Counts(*map(corrected, vars(self).values(), vars(gone).values(), vars(came).values()))

    def recorded(self, table_run: TableRun) -> TableRun:
        """The record of a table with these numbers of rows."""
        table_run = replace(table_run, rows_in=self.rows_in, rows_out=self.rows_out)
        return replace(table_run, set_aside=self.set_aside, copies=self.copies)

    def failed(self, rule: str) -> int:
        return self.failures.get(rule, 0)


def counted(checked: CheckedRows) -> tuple[CheckedRows, Callable[[], Counts]]:
    """The same rows, counted by whatever action reads them; after it, the function returns the counts."""
    rows, counts = remote.counted(checked.rows, *aggregates(checked))
    return replace(checked, rows=rows), lambda: counts_in(checked, counts())


def aggregates(checked: CheckedRows) -> list[SparkColumn]:
    """What Spark counts of checked rows in one pass; `counts_in` knows the names of these columns."""
    is_accepted = checked.is_accepted
    columns = [
        F.sum(COPIES).alias("rows_in"),
        F.count_if(is_accepted).alias("rows_out"),
        F.count_if(~is_accepted).alias("set_aside"),
        F.sum(F.col(COPIES) - 1).alias("copies"),
    ]
    for column in checked.table.summed:
        amount = F.col(column.name)
        copies = F.when(F.col(COPIES) > 1, amount * (F.col(COPIES) - 1).cast("decimal(10,0)"))
        columns += [
            F.sum(F.when(is_accepted, amount)).alias(f"{column.name}_out"),
            F.sum(F.when(~is_accepted, amount)).alias(f"{column.name}_aside"),
            F.sum(copies).alias(f"{column.name}_copies"),
        ]
    return columns + [
        F.count_if(checked.counts_as_failed(check)).alias(f"failed_{index}")
        for index, check in enumerate(checked.checks)
        if check.fails is not None
    ]


def counts_in(checked: CheckedRows, row: Mapping[str, Any]) -> Counts:
    """The counts in the row of `aggregates`. A sum over no rows is null there."""
    failures = dict.fromkeys((check.name for check in checked.checks), 0)
    for index, check in enumerate(checked.checks):
        failures[check.name] += row.get(f"failed_{index}") or 0
    summed = [column.name for column in checked.table.summed]
    out, aside, copies = (
        {name: row[f"{name}_{side}"] or Decimal(0) for name in summed} for side in ("out", "aside", "copies")
    )
    rows = row["rows_in"] or 0, row["rows_out"], row["set_aside"], row["copies"] or 0
    return Counts(*rows, out, aside, copies, failures)


Tables = Mapping[str, StagedTable]  # of silver, and their quarantines, by name


def stored_tables(settings: Settings, run: Run, of: Collection[str] | None = None) -> Tables:
    """The tables as a run left them: all, or some."""
    known, folder = table_runs(run), settings.silver_path / run.domain
    tables = [table for table in tables_of("silver", run.domain) if of is None or table.name in of]
    names = ((table, table.name + suffix) for table in tables for suffix in ("", QUARANTINE))
    return {name: unchanged_table(known[name], table, folder / name) for table, name in names if name in known}


def bronze_rows(db: Engine, job: Job, table: Table, run: Run, keys: str) -> DataFrame | None:
    """The rows that a run of bronze has of the only input of `table`, under `keys`, a relation; None if it has none."""
    source = table_version(job.settings.bronze_path, run, table.inputs[0])
    file = job.scratch / f"{table.name}.{run.run}.parquet"
    save(db, within(source.sql, source.keys, keys), file)
    return read_files(job.session(), [str(file)], source.types) if pq.read_metadata(file).num_rows else None


@dataclass(frozen=True)
class BronzeFacts:
    """What DuckDB found in bronze: the columns in which each value refers to a parent that is there, and whether a
    value was rescued."""

    kept_references: frozenset[str]
    has_rescued: bool


def check_rows(
    upstream: Run, entry: Entry, bronze: list[DataFrame], silver: Tables, facts: BronzeFacts | None = None
) -> CheckedRows:
    """Rows of bronze, all or some that `upstream` has, through a table's transform and its checks. `silver` has the
    tables that this one refers to; `facts` is None if nobody looked into bronze."""
    table = entry.table
    typed, promised = analysis.transformed(entry, bronze), guaranteed(upstream, table)
    parents = {}
    for column, reference in table.references:
        kept = column.name in facts.kept_references if facts else None
        parents[column.name] = _parent(typed.sparkSession, reference, column.made_from in promised, kept, silver)
    unique_keys = "key" in promised or not _has_double_keys(typed, table)
    nothing_rescued = facts is not None and not facts.has_rescued
    try:
        return checks.apply_checks(typed, table, Assumptions(parents, unique_keys, nothing_rescued))
    except analysis.MISTAKES:
        analysis.check_rules(table, typed)
        raise


def accepted(settings: Settings, checked: CheckedRows) -> DataFrame:
    """The rows without a reason to set them aside, with the columns of the contract; card numbers are masked unless the
    settings say plain."""
    rows = checked.rows.where(checked.is_accepted).select(*(column.name for column in checked.table.columns))
    return checks.mask_cards(rows, checked.table) if settings.card_numbers == "masked" else rows


def guaranteed(upstream: Run, table: Table) -> tuple[str, ...]:
    """What the source promises of a table that is made of a single bronze table."""
    return upstream.table(table.inputs[0].name).guaranteed if len(table.inputs) == 1 else ()


def _has_double_keys(typed: DataFrame, table: Table) -> bool:
    """Whether a key comes twice; a missing one counts as a key, too."""
    rows, keys = typed.agg(F.count(F.lit(1)), F.count_distinct(F.struct(*table.keys))).first() or (0, 0)
    return bool(rows != keys)


def _parent(spark: SparkSession, reference: Reference, promised: bool, kept: bool | None, silver: Tables) -> Parent:
    """The parents that a reference is tested against, broadcast if they are few. Each is taken to be there if the
    source promises it, and DuckDB found that it keeps this, or nobody looked and parents are many; gold proves the
    promise. Then only those in quarantine are needed."""
    sides = silver[reference.table.name], silver[reference.table.name + QUARANTINE]
    rows, rows_aside = (side.table_run.rows_out for side in sides)
    many = rows + rows_aside > BROADCAST_ROWS
    trusted = promised and not reference.columns and (many if kept is None else kept)
    good = None if trusted else read(spark, sides[0].content)
    bad = read(spark, sides[1].content) if rows_aside else None
    if good is None and bad is None:
        return Parent(None, guaranteed=True)
    keys = checks.parent_keys(good, bad, reference)
    few = rows_aside + (0 if trusted else rows) <= BROADCAST_ROWS
    return Parent(F.broadcast(keys) if promised and few else keys, trusted)


def rule_runs(
    run: int, checked: CheckedRows, counts: Counts, newly: Counts, known_keys: Mapping[str, tuple[str, ...]]
) -> Iterator[RuleRun]:
    """How each rule fared in all rows of a table, which `counts` has. Example keys cost a pass over `checked`, made
    only if these rows, counted by `newly`, fail a rule. `known_keys` are those of other rows that fail, by rule."""
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
    share = counts.set_aside / counts.rows_in if counts.rows_in else 0
    if broken := [rule for rule in rules if rule.severity is Severity.FAIL and rule.failed]:
        problem, advice = "", "correct the source"
    elif share > limit:
        broken = [rule for rule in rules if rule.severity is Severity.QUARANTINE and rule.failed]
        problem = f"{counts.set_aside:,} of {counts.rows_in:,} rows ({share:.1%}) would be set aside, more than "
        problem += f"LAKEHOUSE_QUALITY__MAX_QUARANTINED={limit:g}: "
        advice = "correct the source or raise the limit"
    else:
        return
    stays = "silver, gold and the CSV stay as they were"
    texts = (f"silver.{table.name}: {problem}{_listed(broken, keys)}; {stays}, {advice}" for keys in (True, False))
    raise QualityFault(*texts)


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
        problem = f"{in_bronze} rows in bronze, {counts.rows_in} read, {accounted} accounted for"
        advice = f"the transform in {file_of(table.module)} must give each row once"
        raise QualityFault(f"silver.{table.name}: {problem}; silver stays as it was, {advice}")
    for column in table.summed:
        totals = [table_run.totals[column.made_from] for table_run in inputs if column.made_from in table_run.totals]
        sides = counts.sums_out, counts.sums_aside, counts.sums_copies
        if len(totals) == 1 and totals[0] != sum(sums.get(column.name, 0) for sums in sides):
            problem = f"the sum of {column.name} is not bronze's"
            raise QualityFault(f"silver.{table.name}: {problem}; silver stays as it was, run it again")


def report_quality(built: StagedTable, report: Report) -> None:
    """Warns of rows set aside, by reason, of copies, and of rules that rows do not meet."""
    name, table_run = f"silver.{built.table.name}", built.table_run
    failed = [rule for rule in built.rules if rule.failed]
    if table_run.set_aside:
        reasons = _listed([rule for rule in failed if rule.severity is Severity.QUARANTINE])
        report.warning(f"{name}: {table_run.set_aside:,} rows set aside in {name}{QUARANTINE}: {reasons}")
    if table_run.copies:
        report.warning(f"{name}: {table_run.copies:,} identical copies counted once")
    for rule in failed:
        if rule.severity is Severity.WARN:
            report.warning(f"{name}: {rule.failed:,} of {rule.tested:,} rows do not meet: {rule.rule}")
