"""Silver's job: each bronze table through its transform and its checks, into the accepted rows and the quarantine."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from conf.contract import Reference, Severity, Table
from conf.settings import Settings
from pipelines import basis, lake, quality
from pipelines.catalogue import Entry
from pipelines.content import stored
from pipelines.duck import engine
from pipelines.errors import QualityFault
from pipelines.lake import QUARANTINE
from pipelines.proof import Built, prove
from pipelines.quality import QUARANTINE_COLUMNS, Check, Parent
from pipelines.records import Link, RuleRun, Run, TableRun
from pipelines.report import Report
from pipelines.spark import read, write_files
from pipelines.sql import quoted

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Found = dict[str, Any]
FEW = 1_000_000


@dataclass(frozen=True)
class Judged:
    """The rows of a table, each with the result of every check, and the checks."""

    rows: DataFrame
    checks: list[Check]


@dataclass(frozen=True)
class Seen:
    """What DuckDB saw in bronze: the columns whose promised reference is kept, and whether a value was rescued."""

    kept: frozenset[str]
    rescued: bool


def build(
    settings: Settings,
    started: "Callable[[], SparkSession]",
    link: Link,
    entries: tuple[Entry, ...],
    report: Report,
) -> Iterator[Built]:
    """Builds the tables, parents first; of each, what became of it and of its quarantine. Raises QualityFault where
    a rule or the share set aside ends the run, and where a row or a cent is not accounted for."""
    from pipelines.follow_silver import follow
    from pipelines.type2 import beside

    done: dict[str, Built] = {}
    with lake.scratch(settings.silver_path, "run") as folder:
        for entry in entries:
            began, name = time.monotonic(), entry.table.name
            report.progress("silver", name, 0)
            why = whole_because(settings, link, entry.table)
            some = [] if why else follow(settings, started, link, entry, done, folder, report)
            for built in some or _whole(settings, started(), link, entry, done, why or basis.MUCH, report):
                done[built.done.name] = built
                yield replace(built, done=replace(built.done, seconds=time.monotonic() - began))
            if entry.table.history:
                yield beside(settings, started, link, entry, done, folder)


def whole_because(settings: Settings, link: Link, table: Table) -> str:
    """Why a table cannot take over what changed in bronze; empty where it can."""
    if why := basis.derived(settings, link.call, link.origin, table.name):
        return why
    assert link.origin is not None
    if len(table.inputs) != 1 or not table.keys:
        return "it is made of several tables"
    if not all("key" in guaranteed(run, table) for run in (link.origin, link.upstream)):
        return "its key may come twice"
    return ""


def _whole(
    settings: Settings,
    spark: "SparkSession",
    link: Link,
    entry: Entry,
    done: dict[str, Built],
    why: str,
    report: Report,
) -> Iterator[Built]:
    """All rows of a table, whatever its last version has."""
    rows = {name: one.done.rows_out for name, one in done.items()}
    bronze = [read(spark, stored(settings.bronze_path, link.upstream, one)) for one in entry.table.inputs]
    seen = look(settings, link.upstream, entry.table)
    judged = judge(link.upstream, entry, bronze, lambda name: read(spark, done[name].content), rows, seen)
    for built in _write(settings, judged, entry.table, link.upstream, link.call.run.run, report):
        yield replace(built, done=replace(built.done, full_at=link.call.run.started, how=f"whole: {why}"))


def look(settings: Settings, upstream: Run, table: Table) -> Seen:
    """Looks into bronze for what checks of all rows need not ask, for less than they would cost in Spark.

    A reference that the source promises is kept where each value is indeed a key of the parent's rows: constraints are
    not asked where triggers are off.
    """
    promised, kept, rescued = guaranteed(upstream, table), set[str](), False
    for one in table.inputs:
        with engine(f"bronze.{one.name}") as duck:
            rows = stored(settings.bronze_path, upstream, one).sql
            found = duck.execute(f"SELECT 1 FROM {rows} WHERE _rescued IS NOT NULL LIMIT 1").fetchone()
            rescued = rescued or found is not None
    for column, reference in table.references:
        parent = reference.table
        if column.made_from in promised and not reference.columns and len(parent.inputs) == 1:
            rows, parents = (
                f"(SELECT {quoted(name)} AS k FROM {stored(settings.bronze_path, upstream, one).sql})"
                for one, name in (
                    (table.inputs[0], column.made_from),
                    (parent.inputs[0], parent[parent.keys[0]].made_from),
                )
            )
            with engine(f"bronze.{table.inputs[0].name}") as duck:
                missing = duck.execute(
                    f"SELECT k FROM {rows} ANTI JOIN {parents} p USING (k) WHERE k IS NOT NULL LIMIT 1"
                )
                if missing.fetchone() is None:
                    kept.add(column.name)
    return Seen(frozenset(kept), rescued)


def judge(
    upstream: Run,
    entry: Entry,
    bronze: list[DataFrame],
    silver: Callable[[str], DataFrame],
    rows: dict[str, int],
    seen: Seen | None = None,
) -> Judged:
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
    folded = quality.without_copies(typed) if once else quality.fold_copies(typed, table.keys)
    checks = quality.checks(table, found, copies=not once, rescued=seen is None or seen.rescued)
    return Judged(quality.judge(folded, table, found, checks), checks)


def accepted(settings: Settings, judged: Judged, table: Table) -> DataFrame:
    """The rows that silver takes, card numbers masked unless the settings say plain."""
    good = quality.accepted(judged.rows, table, judged.checks)
    return quality.mask_cards(good, table) if settings.card_numbers == "masked" else good


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
    keys = quality.parents(good, bad, reference)
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
        rules = tuple(verdicts(judged, found, table, run, found, {}))
        gate(table, found, rules, settings.quality.max_quarantined)
        conserve(table, upstream, found)
        good = prove(good, lake.types_of(table, {}), table.keys, found["rows_out"], totals(table, found, "out"))
        yield replace(good, rules=rules)
        yield _set_aside(settings, judged, table, upstream, run, found)
    except BaseException:
        good.discard()
        raise
    say(table, found, rules, report)


def _set_aside(settings: Settings, judged: Judged, table: Table, upstream: Run, run: int, found: Found) -> Built:
    """The quarantine: a second pass over the rows, only where it is not empty."""
    path, count, files = lake.table_path(settings.silver_path, table, QUARANTINE), found["set_aside"], list[str]()
    if count:
        files = write_files(quality.quarantined(judged.rows, table, judged.checks, upstream.run), path, run)
    done = TableRun(table.name + QUARANTINE, 0, count, count)
    built = Built(done, table, path, lake.schema_of(table, QUARANTINE_COLUMNS), files)
    return prove(built, lake.types_of(table, QUARANTINE_COLUMNS), table.keys, count, totals(table, found, "aside"))


def verdicts(
    judged: Judged, found: Found, table: Table, run: int, here: Found, known: Mapping[str, tuple[str, ...]]
) -> Iterator[RuleRun]:
    """How each rule fared in all rows; the keys to look at cost a pass of their own, only where a rule has failed in
    those judged, as `here` counts them. `known` has keys of others that failed, by rule."""
    failed = {index: found.get(f"failed_{index}", 0) for index in range(len(judged.checks))}
    some = [index for index in failed if here.get(f"failed_{index}")]
    keys = quality.examples(judged.rows, table, judged.checks, some)
    for index, check in enumerate(judged.checks):
        tested = found["rows_out"] if check.severity is Severity.WARN else found["rows_out"] + found["set_aside"]
        shown = tuple(sorted({*keys.get(index, ()), *known.get(check.name, ())}, key=_in_order))[: quality.EXAMPLES]
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


def say(table: Table, found: Found, rules: tuple[RuleRun, ...], report: Report) -> None:
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
