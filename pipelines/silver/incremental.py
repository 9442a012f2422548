"""Silver from what changed in bronze: only rows that changed, and rows whose parents did, are judged again.

What the previous run counted (rows, sums, failures of each rule), minus what the old rows of these keys count, plus
what the new ones count, is what a run over all rows would count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from conf.contract import Reference, Table
from pipelines.core.catalogue import Entry
from pipelines.core.errors import QualityFault
from pipelines.core.names import QUARANTINE
from pipelines.core.sql import identifier
from pipelines.lake import changes, run_log
from pipelines.lake.engine import Engine, count, engine, listed, relation, save, within
from pipelines.lake.runs import Job, RuleRun, TableRun
from pipelines.lake.versions import StagedTable, discarded_on_failure, table_version, unchanged_table
from pipelines.silver import checks, judging
from pipelines.silver.checks import CheckedRows
from pipelines.silver.judging import Counts, Sums, gate, report_quality, stored_as
from pipelines.spark.frames import read_files, write_parquet

AFFECTED = "affected"  # the table of keys whose rows are judged again


@dataclass(frozen=True)
class Recorded:
    """What the previous run recorded of a table, of its quarantine, and of its rules by name."""

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
    settings, table, previous = job.settings, entry.table, job.previous
    assert previous is not None
    rules_before = (rule for rule in run_log.read_rules(settings.silver_path, previous) if rule.table == table.name)
    recorded = Recorded(
        previous.table(table.name),
        previous.table(table.name + QUARANTINE),
        {rule.rule: rule for rule in rules_before},
    )
    with engine(f"silver.{table.name}", job.scratch) as db:
        affected = _affected(db, job, table, staged)
        if not affected:
            return _unchanged(job, table, recorded)
        if affected > changes.CHANGED_SHARE * max(recorded.good.rows_in, 1):
            return []
        old, new = _checked(db, job, entry, None), _checked(db, job, entry, staged)
        checked = new or old
        assert checked is not None
        if {check.name for check in checked.checks} != recorded.rules.keys():
            return []
        good, bad, came = _write_new(job, new) if new else ([], [], Counts())
        counts = recorded.counts - _counts_of(old) + came
        known_keys = _keys_still_failing(db, recorded, table)
        rules = tuple(judging.rule_runs(job.run.run, checked, counts, came, known_keys))
        gate(table, counts, rules, settings.quality.max_quarantined)
        judging.conserve(table, job.upstream, counts)
        built: list[StagedTable] = []
        with discarded_on_failure(built):
            built.append(replace(_replaced(db, job, table, recorded.good, good), rules=rules))
            built.append(_replaced(db, job, table, recorded.bad, bad))
            _prove(built, counts)
    report_quality(table, counts, rules, job.report)
    good_run = replace(built[0].table_run, rows_in=counts.rows_in, set_aside=counts.set_aside, copies=counts.copies)
    bad_run = replace(built[1].table_run, rows_in=counts.set_aside)
    return [replace(built[0], table_run=good_run), replace(built[1], table_run=bad_run)]


def _unchanged(job: Job, table: Table, recorded: Recorded) -> list[StagedTable]:
    """The table and its quarantine as they are; their rules fared as before."""
    rules = tuple(replace(rule, run=job.run.run) for rule in recorded.rules.values())
    gate(table, recorded.counts, rules, job.settings.quality.max_quarantined)
    report_quality(table, recorded.counts, rules, job.report)
    good, bad, folder = recorded.good, recorded.bad, job.settings.silver_path / table.domain
    return [unchanged_table(good, table, folder / good.name, rules), unchanged_table(bad, table, folder / bad.name)]


def _affected(db: Engine, job: Job, table: Table, staged: Mapping[str, StagedTable]) -> int:
    """Makes the table `affected`: keys whose row changed in bronze, or whose parent changed. How many."""
    settings, previous, (source,) = job.settings, job.previous, table.inputs
    assert previous is not None and job.origin is not None
    old, new = (table_version(settings.bronze_path, run, source) for run in (job.origin, job.upstream))
    named = ", ".join(f"{identifier(table[key].made_from)} AS {identifier(key)}" for key in table.keys)
    parts = [f"SELECT {named} FROM {changes.changed_keys(old, new)}"]
    for column, reference in table.references:
        parents = _changed_parents(job, reference, staged)
        for name in (table.name, table.name + QUARANTINE):
            former = table_version(settings.silver_path, previous, table, name).sql
            children = (changes.rows_referring_to(former, column, keys) for keys in parents)
            parts += [f"SELECT {listed(table.keys)} FROM {rows}" for rows in children]
    db.execute(f"CREATE TEMP TABLE {AFFECTED} AS {' UNION '.join(parts)}")
    return count(db, AFFECTED)


def _changed_parents(job: Job, reference: Reference, staged: Mapping[str, StagedTable]) -> list[str]:
    """SQL of the keys of parents that came, went, entered or left quarantine, or have other values that rules see."""
    assert job.previous is not None
    parent, relations = reference.table, []
    for name, columns in ((parent.name, reference.columns), (parent.name + QUARANTINE, ())):
        old, new = stored_as(job.settings, job.previous, name), staged[name].content
        if set(old.files) != set(new.files):
            gone, came = (
                f"SELECT {listed((*parent.keys, *columns))} FROM {side.only(set(side.files) - set(other.files)).sql}"
                for side, other in ((old, new), (new, old))
            )
            both = f"(({gone}) EXCEPT ({came})) UNION (({came}) EXCEPT ({gone}))"
            relations.append(f"(SELECT {listed(parent.keys)} FROM ({both}))")
    return relations


def _checked(db: Engine, job: Job, entry: Entry, staged: Mapping[str, StagedTable] | None) -> CheckedRows | None:
    """The affected rows as bronze has them, checked with the silver of `staged`; without that, as bronze had them, with
    the silver of the previous run. None if bronze has none."""
    run, (source,) = job.origin if staged is None else job.upstream, entry.table.inputs
    assert run is not None and job.previous is not None
    content = table_version(job.settings.bronze_path, run, source)
    named = ", ".join(f"{identifier(key)} AS {identifier(entry.table[key].made_from)}" for key in entry.table.keys)
    file = job.scratch / f"{entry.table.name}.affected.{run.run}.parquet"
    save(db, within(content.sql, content.keys, f"(SELECT {named} FROM {AFFECTED})"), file)
    if not pq.read_metadata(file).num_rows:
        return None
    spark = job.session()
    silver = (
        judging.stored_tables(spark, job.settings, job.previous)
        if staged is None
        else judging.staged_tables(spark, staged)
    )
    return judging.check_rows(run, entry, [read_files(spark, [str(file)], content.types)], silver)


def _counts_of(checked: CheckedRows | None) -> Counts:
    row = checked.rows.agg(*judging.aggregates(checked)).first() if checked else None
    return judging.counts_in(checked, row.asDict()) if checked and row else Counts()


def _write_new(job: Job, checked: CheckedRows) -> tuple[list[Path], list[Path], Counts]:
    """Writes the rows that silver accepts, and those that it sets aside; the files of both, and the counts."""
    observed, counts_when_written = judging.counted(checked)
    name = checked.table.name
    good = write_parquet(judging.accepted(job.settings, observed), job.scratch / f"{name}.accepted")
    counts = counts_when_written()
    if not counts.set_aside:
        return good, [], counts
    return good, write_parquet(checks.quarantined(checked, job.upstream.run), job.scratch / f"{name}.aside"), counts


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


def _replaced(db: Engine, job: Job, table: Table, recorded: TableRun, files: list[Path]) -> StagedTable:
    """A table in which the affected rows are those of `files`; unchanged if they are so already."""
    assert job.previous is not None
    target = changes.Target(table, job.settings.silver_path / table.domain / recorded.name, job.run.run)
    old = table_version(job.settings.silver_path, job.previous, table, recorded.name)
    rows = relation([str(file) for file in files], old.types)
    return changes.splice_differing(
        db, changes.Splice(old, recorded, changes.with_keys(old.keys, AFFECTED), rows), target
    )


def _prove(built: list[StagedTable], counts: Counts) -> None:
    """Raises QualityFault unless the table and its quarantine have the rows and the sums that were counted."""
    expected = ((counts.rows_out, counts.sums_out), (counts.set_aside, counts.sums_aside))
    for side, (rows, sums) in zip(built, expected, strict=True):
        if side.table_run.rows_out != rows or side.table_run.totals != sums:
            problem = "its rows or sums are not those that were counted"
            raise QualityFault(f"silver.{side.table_run.name}: {problem}; silver stays as it was, run it again")
