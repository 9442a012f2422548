"""Silver from what changed in bronze: only rows that changed, and rows whose parents did, are judged again (ADR 16)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from conf.contract import Reference, Table
from pipelines.core.catalogue import Entry
from pipelines.core.errors import QualityFault
from pipelines.core.names import QUARANTINE
from pipelines.lake import changes, run_log
from pipelines.lake.engine import Engine, count, engine, listed, relation, renamed
from pipelines.lake.runs import Job, RuleRun, Run
from pipelines.lake.versions import StagedTable, table_version
from pipelines.silver import checks, judging
from pipelines.silver.checks import CheckedRows
from pipelines.silver.judging import Counts, Tables, gate
from pipelines.spark.frames import write_parquet

AFFECTED = "affected"  # the table of keys whose rows are judged again


def apply_changes(job: Job, entry: Entry, staged: Tables) -> list[StagedTable]:
    """A table and its quarantine with what changed since the previous run; nothing if too much did, or if its rules are
    others. `staged` has its parents. Raises QualityFault as a run over all rows would."""
    settings, table, previous = job.settings, entry.table, job.previous
    assert previous is not None and job.origin is not None
    stored = judging.stored_tables(settings, previous)
    good, bad = stored[table.name], stored[table.name + QUARANTINE]
    rules_before = run_log.read_rules(settings.silver_path, previous)
    known_rules = tuple(rule for rule in rules_before if rule.table == table.name)
    known_counts, limit = _counts_recorded(good, bad, known_rules), settings.quality.max_quarantined
    with engine(f"silver.{table.name}", job.scratch) as db:
        affected = _affected(db, job, table, stored, staged)
        if not affected:
            gate(table, known_counts, known_rules, limit)
            return [replace(good, rules=known_rules), bad]
        if affected > changes.CHANGED_SHARE * max(known_counts.rows_in, 1):
            return []
        old = _checked(db, job, entry, job.origin, stored)
        new = _checked(db, job, entry, job.upstream, staged)
        checked = new or old
        assert checked is not None
        if {check.name for check in checked.checks} != {rule.rule for rule in known_rules}:
            return []
        with ThreadPoolExecutor(1) as beside:  # few rows keep no two cores busy
            gone = beside.submit(_counts_of, old)
            good_files, bad_files, came = _write_new(job, new) if new else ([], [], Counts())
        counts = known_counts.after(gone.result(), came)
        known_keys = _keys_still_failing(db, known_rules, table)
        rules = tuple(judging.rule_runs(job.run.run, checked, counts, came, known_keys))
        gate(table, counts, rules, limit)
        judging.conserve(table, job.upstream, counts)
        new_good, new_bad = _replaced(db, job, good, good_files), _replaced(db, job, bad, bad_files)
        _prove((new_good, new_bad), counts)
    return [replace(new_good, table_run=counts.recorded(new_good.table_run), rules=rules), new_bad]


def _counts_recorded(good: StagedTable, bad: StagedTable, rules: tuple[RuleRun, ...]) -> Counts:
    """What the previous run counted. No amount is in copies, because keys come once."""
    table_run, failures = good.table_run, {rule.rule: rule.failed for rule in rules}
    rows = table_run.rows_in, table_run.rows_out, table_run.set_aside, table_run.copies
    return Counts(*rows, table_run.totals, bad.table_run.totals, failures=failures)


def _affected(db: Engine, job: Job, table: Table, stored: Tables, staged: Tables) -> int:
    """Makes the table `affected`: keys whose row changed in bronze, or whose parent changed. How many."""
    runs = (job.origin, job.upstream)
    old, new = (table_version(job.settings.bronze_path, run, table.inputs[0]) for run in runs if run)
    named = renamed((table[key].made_from for key in table.keys), table.keys)
    parts = [f"SELECT {named} FROM {changes.changed_keys(old, new)}"]
    for column, reference in table.references:
        parents = _changed_parents(reference, stored, staged)
        for name in (table.name, table.name + QUARANTINE):
            former = stored[name].content.sql
            children = (changes.rows_referring_to(former, column, keys) for keys in parents)
            parts += [f"SELECT {listed(table.keys)} FROM {rows}" for rows in children]
    db.execute(f"CREATE TEMP TABLE {AFFECTED} AS {' UNION '.join(parts)}")
    return count(db, AFFECTED)


def _changed_parents(reference: Reference, stored: Tables, staged: Tables) -> list[str]:
    """SQL of the keys of parents that came, went, entered or left quarantine, or have other values that rules see."""
    parent, relations = reference.table, []
    for name, columns in ((parent.name, reference.columns), (parent.name + QUARANTINE, ())):
        old, new = stored[name].content, staged[name].content
        if set(old.files) != set(new.files):
            gone, came = (f"SELECT {listed((*parent.keys, *columns))} FROM {rows}" for rows in changes.sides(old, new))
            both = f"(({gone}) EXCEPT ({came})) UNION (({came}) EXCEPT ({gone}))"
            relations.append(f"(SELECT {listed(parent.keys)} FROM ({both}))")
    return relations


def _checked(db: Engine, job: Job, entry: Entry, run: Run, silver: Tables) -> CheckedRows | None:
    """The affected rows as a run of bronze has them, checked with the silver of its time. None if it has none."""
    named = renamed(entry.table.keys, (entry.table[key].made_from for key in entry.table.keys))
    frame = judging.bronze_rows(db, job, entry.table, run, f"(SELECT {named} FROM {AFFECTED})")
    return None if frame is None else judging.check_rows(run, entry, [frame], silver)


def _counts_of(checked: CheckedRows | None) -> Counts:
    row = checked.rows.agg(*judging.aggregates(checked)).first() if checked else None
    return judging.counts_in(checked, row.asDict()) if checked and row else Counts()


def _write_new(job: Job, checked: CheckedRows) -> tuple[list[str], list[str], Counts]:
    """Writes the rows that silver accepts, and those that it sets aside; the files of both, and the counts."""
    observed, counts_when_written = judging.counted(checked)
    name = checked.table.name
    good = write_parquet(judging.accepted(job.settings, observed), job.scratch / f"{name}.accepted")
    counts = counts_when_written()
    if not counts.set_aside:
        return good, [], counts
    return good, write_parquet(checks.quarantined(checked, job.upstream.run), job.scratch / f"{name}.aside"), counts


def _keys_still_failing(db: Engine, rules: tuple[RuleRun, ...], table: Table) -> dict[str, tuple[str, ...]]:
    """By rule, the recorded keys that failed it and were not judged again. Only of whole numbers, which both engines
    write alike."""
    if any(table[key].type not in ("bigint", "integer", "smallint") for key in table.keys):
        return {}
    shown = f"concat_ws(', ', {listed(table.keys)})"
    keys = sorted({key for rule in rules for key in rule.keys})
    sql = f"SELECT {shown} FROM {AFFECTED} WHERE list_contains($keys, {shown})"
    again = {key for (key,) in db.execute(sql, {"keys": keys}).fetchall()} if keys else set()
    return {rule.rule: tuple(key for key in rule.keys if key not in again) for rule in rules}


def _replaced(db: Engine, job: Job, stored: StagedTable, files: list[str]) -> StagedTable:
    """A table in which the affected rows are those of `files`; unchanged if they are so already."""
    old = stored.content
    rows = relation(files, old.types)
    change = changes.Splice(old, stored.table_run, changes.Selection(old.keys, AFFECTED), rows)
    return changes.splice_differing(db, change, changes.Target(stored.table, stored.path, job.run.run))


def _prove(built: tuple[StagedTable, StagedTable], counts: Counts) -> None:
    """Raises QualityFault unless the table and its quarantine have the rows and the sums that were counted."""
    expected = ((counts.rows_out, counts.sums_out), (counts.set_aside, counts.sums_aside))
    for side, (rows, sums) in zip(built, expected, strict=True):
        if side.table_run.rows_out != rows or side.table_run.totals != sums:
            problem = "its rows or sums are not those that were counted"
            raise QualityFault(f"silver.{side.table_run.name}: {problem}; silver stays as it was, run it again")
