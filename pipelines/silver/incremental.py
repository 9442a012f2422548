"""Silver from what changed in bronze: only rows that changed, and rows whose parents did, are judged again.

What the previous run counted (rows, sums, failures of each rule), minus what the old rows of these keys count, plus
what the new ones count, is what a run over all rows would count.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from conf.contract import Reference, Table
from conf.settings import Settings
from pipelines.core.catalogue import Entry, table_of
from pipelines.core.errors import QualityFault
from pipelines.core.names import QUARANTINE
from pipelines.core.sql import identifier
from pipelines.lake import folders, run_log
from pipelines.lake.changes import (
    CHANGED_SHARE,
    Splice,
    Target,
    changed_keys,
    rows_referring_to,
    splice_differing,
    with_keys,
)
from pipelines.lake.engine import Engine, count, engine, listed, relation, save, within
from pipelines.lake.runs import Job, RuleRun, Run, TableRun
from pipelines.lake.versions import StagedTable, TableVersion, table_version, unchanged_table
from pipelines.silver import checks
from pipelines.silver.checks import CheckedRows
from pipelines.silver.counts import Counts, Sums, aggregates, counted, counts_in
from pipelines.silver.judging import SilverTables, accepted, check_rows, conserve, gate, report_quality, rule_runs
from pipelines.spark.frames import read, read_files, write_parquet

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


AFFECTED = "affected"  # the table of keys whose rows are judged again


@dataclass(frozen=True)
class Recorded:
    """What the previous run recorded of a table, of its quarantine, and of its rules by name."""

    run: Run
    good: TableRun
    bad: TableRun
    rules: Mapping[str, RuleRun]

    @property
    def counts(self) -> Counts:
        """What that run counted. No amount is in copies, because keys come once."""
        sums = {name: Sums(total, self.bad.totals[name]) for name, total in self.good.totals.items()}
        failures = {name: rule.failed for name, rule in self.rules.items()}
        good = self.good
        return Counts(good.rows_in, good.rows_out, good.set_aside, good.copies, sums, failures)


def apply_changes(job: Job, entry: Entry, staged: Mapping[str, StagedTable]) -> list[StagedTable]:
    """A table and its quarantine with what changed since the previous run; nothing if too much did, or if its rules are
    others. `staged` has its parents. Raises QualityFault as a run over all rows would."""
    table, recorded = entry.table, _recorded(job, entry.table)
    with engine(f"silver.{table.name}", job.scratch) as db:
        affected = _affected(db, job, recorded.run, table, staged)
        if not affected:
            return _unchanged(job, table, recorded)
        if affected > CHANGED_SHARE * max(recorded.good.rows_in, 1):
            return []
        assert job.origin is not None
        old = _checked(db, job, entry, job.origin, lambda name: stored_as(job.settings, recorded.run, name))
        new = _checked(db, job, entry, job.upstream, lambda name: staged[name].content)
        checked = new or old
        assert checked is not None
        if {check.name for check in checked.checks} != recorded.rules.keys():
            return []
        good, bad, came = _write_new(job, new, job.scratch / table.name) if new else ([], [], Counts())
        counts = recorded.counts - _counts_of(old) + came
        rules = tuple(rule_runs(job.run.run, checked, counts, came, _keys_still_failing(db, recorded, table)))
        gate(table, counts, rules, job.settings.quality.max_quarantined)
        conserve(table, job.upstream, counts)
        built: list[StagedTable] = []
        try:
            built.append(replace(_replaced(db, job, table, recorded.good, good), rules=rules))
            built.append(_replaced(db, job, table, recorded.bad, bad))
            _prove(built, counts)
        except BaseException:
            for side in built:
                side.discard()
            raise
    report_quality(table, counts, rules, job.report)
    good_run = replace(built[0].table_run, rows_in=counts.rows_in, set_aside=counts.set_aside, copies=counts.copies)
    bad_run = replace(built[1].table_run, rows_in=counts.set_aside)
    return [replace(built[0], table_run=good_run), replace(built[1], table_run=bad_run)]


def _recorded(job: Job, table: Table) -> Recorded:
    previous = job.previous
    assert previous is not None
    rules = run_log.read_rules(job.settings.silver_path, previous)
    return Recorded(
        previous,
        previous.table(table.name),
        previous.table(table.name + QUARANTINE),
        {rule.rule: rule for rule in rules if rule.table == table.name},
    )


def _unchanged(job: Job, table: Table, recorded: Recorded) -> list[StagedTable]:
    """The table and its quarantine as they are; their rules fared as before."""
    rules = tuple(replace(rule, run=job.run.run) for rule in recorded.rules.values())
    gate(table, recorded.counts, rules, job.settings.quality.max_quarantined)
    report_quality(table, recorded.counts, rules, job.report)
    good, bad, folder = recorded.good, recorded.bad, job.settings.silver_path / table.domain
    return [
        unchanged_table(good, table, folder / good.name, rules),
        unchanged_table(bad, table, folder / bad.name),
    ]


def stored_as(settings: Settings, run: Run, name: str) -> TableVersion:
    """A table of silver, by name, as a run left it."""
    table = table_of("silver", name)
    assert table is not None
    return table_version(settings.silver_path, run, table, name)


def _affected(db: Engine, job: Job, previous: Run, table: Table, staged: Mapping[str, StagedTable]) -> int:
    """Makes the table `affected`: keys whose row changed in bronze, or whose parent changed. How many."""
    settings, origin, (source,) = job.settings, job.origin, table.inputs
    assert origin is not None
    rows = changed_keys(
        table_version(settings.bronze_path, origin, source), table_version(settings.bronze_path, job.upstream, source)
    )
    named = ", ".join(f"{identifier(table[key].made_from)} AS {identifier(key)}" for key in table.keys)
    parts = [f"SELECT {named} FROM {rows}"]
    for column, reference in table.references:
        parents = _changed_parents(settings, previous, reference, staged)
        for name in (table.name, table.name + QUARANTINE):
            children = table_version(settings.silver_path, previous, table, name).sql
            parts += [
                f"SELECT {listed(table.keys)} FROM {rows_referring_to(children, column, keys)}" for keys in parents
            ]
    db.execute(f"CREATE TEMP TABLE {AFFECTED} AS {' UNION '.join(parts)}")
    return count(db, AFFECTED)


def _changed_parents(
    settings: Settings, previous: Run, reference: Reference, staged: Mapping[str, StagedTable]
) -> list[str]:
    """SQL of the keys of parents that came, went, entered or left quarantine, or have other values that rules see."""
    parent, relations = reference.table, []
    for name, columns in ((parent.name, reference.columns), (parent.name + QUARANTINE, ())):
        old, new = stored_as(settings, previous, name), staged[name].content
        seen = listed((*parent.keys, *columns))
        sides = [
            f"(SELECT {seen} FROM {side.only(set(side.files) - set(other.files)).sql})"
            for side, other in ((old, new), (new, old))
        ]
        if set(old.files) != set(new.files):
            both = " UNION ".join(
                f"(SELECT * FROM {side} EXCEPT SELECT * FROM {other})" for side, other in (sides, reversed(sides))
            )
            relations.append(f"(SELECT {listed(parent.keys)} FROM ({both}))")
    return relations


def _checked(db: Engine, job: Job, entry: Entry, run: Run, silver: Callable[[str], TableVersion]) -> CheckedRows | None:
    """The affected rows as a bronze run has them, checked with the silver of that time; None if it has none."""
    (source,), folder = entry.table.inputs, job.scratch / entry.table.name
    content = table_version(job.settings.bronze_path, run, source)
    named = ", ".join(f"{identifier(key)} AS {identifier(entry.table[key].made_from)}" for key in entry.table.keys)
    with folders.storage(f"folder {folder}"):
        folder.mkdir(exist_ok=True)
    file = folder / f"{run.run}.parquet"
    save(db, within(content.sql, content.keys, f"(SELECT {named} FROM {AFFECTED})"), file)
    if not pq.read_metadata(file).num_rows:
        return None
    spark, parents = job.session(), [reference.table.name for _, reference in entry.table.references]
    versions = {name: silver(name) for parent in parents for name in (parent, parent + QUARANTINE)}
    rows = {name: count(db, version.sql) for name, version in versions.items()}
    bronze = [read_files(spark, [str(file)], content.types)]
    return check_rows(run, entry, bronze, SilverTables(lambda name: read(spark, versions[name]), rows))


def _counts_of(checked: CheckedRows | None) -> Counts:
    if checked is None:
        return Counts()
    row = checked.rows.agg(*aggregates(checked)).first()
    assert row is not None
    return counts_in(checked, row.asDict())


def _write_new(job: Job, checked: CheckedRows, folder: Path) -> tuple[list[str], list[str], Counts]:
    """Writes the rows that silver accepts, and those that it sets aside; the files of both, and the counts."""
    observed, counts_when_written = counted(checked)
    good = _write(accepted(job.settings, observed), folder / "accepted")
    counts = counts_when_written()
    bad = _write(checks.quarantined(checked, job.upstream.run), folder / "aside") if counts.set_aside else []
    return good, bad, counts


def _write(frame: "DataFrame", folder: Path) -> list[str]:
    with folders.storage(f"folder {folder}"):
        folder.mkdir()
    return [str(file) for file in write_parquet(frame, folder)]


def _keys_still_failing(db: Engine, recorded: Recorded, table: Table) -> dict[str, tuple[str, ...]]:
    """By rule, the recorded keys that failed it and were not judged again. Only of whole numbers, which both engines
    write alike."""
    if any(table[key].type not in ("bigint", "integer", "smallint") for key in table.keys):
        return {}
    shown = f"concat_ws(', ', {listed(table.keys)})"
    keys = sorted({key for rule in recorded.rules.values() for key in rule.keys})
    sql = f"SELECT {shown} FROM {AFFECTED} WHERE list_contains($keys, {shown})"
    again = {key for (key,) in db.execute(sql, {"keys": keys}).fetchall()} if keys else set()
    return {name: tuple(key for key in rule.keys if key not in again) for name, rule in recorded.rules.items()}


def _replaced(db: Engine, job: Job, table: Table, recorded: TableRun, files: list[str]) -> StagedTable:
    """A table in which the affected rows are those of `files`; unchanged if they are so already."""
    assert job.previous is not None
    place = Target(table, job.settings.silver_path / table.domain / recorded.name, job.run.run)
    old = table_version(job.settings.silver_path, job.previous, table, recorded.name)
    change = Splice(old, recorded, with_keys(old.keys, AFFECTED), relation(files, old.types))
    return splice_differing(db, change, place)


def _prove(built: list[StagedTable], counts: Counts) -> None:
    """Raises QualityFault unless the table and its quarantine have the rows and the sums that were counted."""
    expected = ((counts.rows_out, counts.sums_out), (counts.set_aside, counts.sums_aside))
    for side, (rows, sums) in zip(built, expected, strict=True):
        if side.table_run.rows_out != rows or side.table_run.totals != sums:
            raise QualityFault(
                f"silver.{side.table_run.name}: its rows or sums are not those that were counted; "
                "silver stays as it was, run it again"
            )
