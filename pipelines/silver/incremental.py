"""Silver from what changed in bronze: rows that changed, and rows whose parents did, are judged again; others stay.

What a run knows of a table (rows, sums, failures of each rule) is corrected by what the old rows and the new ones of
those keys add to it, so that it is what a run over all rows would find.
"""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from pyspark.sql import Observation

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
from pipelines.lake.runs import RuleRun, Run, TableRun
from pipelines.lake.staging import StagedTable, unchanged_table
from pipelines.lake.versions import TableVersion, table_version
from pipelines.silver import checks as silver_checks
from pipelines.silver.judging import (
    CheckedRows,
    Found,
    accepted,
    check_rows,
    conserve,
    gate,
    report_quality,
    totals,
    verdicts,
)
from pipelines.spark.frames import read, read_files, write_parquet
from pipelines.spark.job import Job

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


AFFECTED = "affected"


def apply_changes(job: Job, entry: Entry, staged: dict[str, StagedTable]) -> list[StagedTable]:
    """A table and its quarantine with what changed since the run before; nothing where much did. Raises as a run over
    all rows would."""
    settings, table, previous, origin = job.settings, entry.table, job.previous, job.origin
    assert previous is not None and origin is not None
    was, aside = previous.table(table.name), previous.table(table.name + QUARANTINE)
    rules = {rule.rule: rule for rule in run_log.read_rules(settings.silver_path, previous) if rule.table == table.name}
    with engine(f"silver.{table.name}", job.scratch) as db:
        some = _affected(db, job, table, staged)
        if not some:
            again = tuple(replace(rule, run=job.run.run) for rule in rules.values())
            path, found = settings.silver_path / table.domain, numbers(was, aside, rules, [])
            gate(table, found, again, settings.quality.max_quarantined)
            report_quality(table, found, again, job.report)
            return [
                unchanged_table(was, table, path / was.name, again),
                unchanged_table(aside, table, path / aside.name),
            ]
        if some > CHANGED_SHARE * max(was.rows_in, 1):
            return []
        place = job.scratch / table.name
        old = _judged(db, job, entry, origin, lambda name: stored_as(settings, previous, name))
        new = _judged(db, job, entry, job.upstream, lambda name: staged[name].content)
        judged = new or old
        assert judged is not None
        if {check.name for check in judged.checks} != rules.keys():
            return []
        less = _counted(old.rows.agg(*silver_checks.counts(table, old.checks)).first()) if old else {}
        good, more = _accepted(settings, new, table, place / "accepted") if new else ([], {})
        found = {
            name: value - less.get(name, 0) + more.get(name, 0)
            for name, value in numbers(was, aside, rules, judged.checks).items()
        }
        verdict = tuple(verdicts(judged, found, table, job.run.run, more, _known(db, rules, table)))
        gate(table, found, verdict, settings.quality.max_quarantined)
        conserve(table, job.upstream, found)
        bad = (
            _written(silver_checks.quarantined(new.rows, table, new.checks, job.upstream.run), place / "aside")
            if (new and more["set_aside"])
            else []
        )
        built = [replace(_replaced(db, job, table, was, good), rules=verdict)]
        try:
            built.append(_replaced(db, job, table, aside, bad))
            _prove(table, built, found)
        except BaseException:
            for one in built:
                one.discard()
            raise
    report_quality(table, found, verdict, job.report)
    counted = {name: found[name] for name in ("rows_in", "set_aside", "copies")}
    good_done, bad_done = (
        replace(built[0].table_run, **counted),
        replace(built[1].table_run, rows_in=found["set_aside"]),
    )
    return [replace(built[0], table_run=good_done), replace(built[1], table_run=bad_done)]


def stored_as(settings: Settings, run: Run, name: str) -> TableVersion:
    """A table of silver, by name, as a run left it."""
    table = table_of("silver", name)
    assert table is not None
    return table_version(settings.silver_path, run, table, name)


def _affected(db: Engine, job: Job, table: Table, staged: dict[str, StagedTable]) -> int:
    """Makes the table `affected`: keys whose row bronze has changed, or whose parent is another one. How many."""
    settings, previous, origin, (source,) = job.settings, job.previous, job.origin, table.inputs
    assert previous is not None and origin is not None
    rows = changed_keys(
        table_version(settings.bronze_path, origin, source), table_version(settings.bronze_path, job.upstream, source)
    )
    named = ", ".join(f"{identifier(table[key].made_from)} AS {identifier(key)}" for key in table.keys)
    parts = [f"SELECT {named} FROM {rows}"]
    for column, reference in table.references:
        other = _other_parents(settings, previous, reference, staged)
        for name in (table.name, table.name + QUARANTINE):
            children = table_version(settings.silver_path, previous, table, name).sql
            parts += [f"SELECT {listed(table.keys)} FROM {rows_referring_to(children, column, keys)}" for keys in other]
    db.execute(f"CREATE TEMP TABLE {AFFECTED} AS {' UNION '.join(parts)}")
    return count(db, AFFECTED)


def _other_parents(
    settings: Settings, previous: Run, reference: Reference, staged: dict[str, StagedTable]
) -> list[str]:
    """SQL of the keys of parents that came, went, entered or left quarantine, or of which rules see other values."""
    parent, some = reference.table, []
    for name, more in ((parent.name, reference.columns), (parent.name + QUARANTINE, ())):
        old, new = stored_as(settings, previous, name), staged[name].content
        seen = listed((*parent.keys, *more))
        sides = [
            f"(SELECT {seen} FROM {one.only(set(one.files) - set(other.files)).sql})"
            for one, other in ((old, new), (new, old))
        ]
        if set(old.files) != set(new.files):
            both = " UNION ".join(
                f"(SELECT * FROM {one} EXCEPT SELECT * FROM {other})" for one, other in (sides, reversed(sides))
            )
            some.append(f"(SELECT {listed(parent.keys)} FROM ({both}))")
    return some


def _judged(db: Engine, job: Job, entry: Entry, run: Run, silver: Callable[[str], TableVersion]) -> CheckedRows | None:
    """The affected rows as a bronze run has them, judged with the silver of that time; None where it has none."""
    (source,), folder, spark = entry.table.inputs, job.scratch / entry.table.name, job.session()
    content = table_version(job.settings.bronze_path, run, source)
    named = ", ".join(f"{identifier(key)} AS {identifier(entry.table[key].made_from)}" for key in entry.table.keys)
    with folders.storage(f"folder {folder}"):
        folder.mkdir(exist_ok=True)
    file = folder / f"{run.run}.parquet"
    save(db, within(content.sql, content.keys, f"(SELECT {named} FROM {AFFECTED})"), file)
    if not pq.read_metadata(file).num_rows:
        return None
    tables = [reference.table.name for _, reference in entry.table.references]
    parents = {name: silver(name) for one in tables for name in (one, one + QUARANTINE)}
    rows = {name: count(db, parent.sql) for name, parent in parents.items()}
    bronze = [read_files(spark, [str(file)], content.types)]
    return check_rows(run, entry, bronze, lambda name: read(spark, parents[name]), rows)


def _accepted(settings: Settings, judged: CheckedRows, table: Table, folder: Path) -> tuple[list[str], Found]:
    """Writes the rows that silver takes; the files, and what was counted on the way."""
    observed = Observation(table.name)
    rows = judged.rows.observe(observed, *silver_checks.counts(table, judged.checks))
    files = _written(accepted(settings, replace(judged, rows=rows), table), folder)
    return files, {name: value or 0 for name, value in observed.get.items()}


def _written(frame: "DataFrame", folder: Path) -> list[str]:
    with folders.storage(f"folder {folder}"):
        folder.mkdir()
    return [str(file) for file in write_parquet(frame, folder)]


def _counted(row: object) -> Found:
    assert row is not None
    return {name: value or 0 for name, value in row.asDict().items()}  # type: ignore[attr-defined]


def numbers(was: TableRun, aside: TableRun, rules: dict[str, RuleRun], checks: list[silver_checks.Check]) -> Found:
    """What the run before counted, as `silver_checks.counts` names it. There are no copies where keys come once."""
    found: Found = {name: getattr(was, name) for name in ("rows_in", "rows_out", "set_aside", "copies")}
    for name, total in was.totals.items():
        found |= {f"{name}_out": total, f"{name}_aside": aside.totals[name], f"{name}_copies": Decimal(0)}
    return found | {f"failed_{index}": rules[check.name].failed for index, check in enumerate(checks)}


def _known(db: Engine, rules: dict[str, RuleRun], table: Table) -> dict[str, tuple[str, ...]]:
    """Keys that failed a rule before and were not judged again; of whole numbers, which both engines write alike."""
    if any(table[key].type not in ("bigint", "integer", "smallint") for key in table.keys):
        return {}
    shown = f"concat_ws(', ', {listed(table.keys)})"
    named = sorted({key for rule in rules.values() for key in rule.keys})
    sql = f"SELECT {shown} FROM {AFFECTED} WHERE list_contains($keys, {shown})"
    again = {key for (key,) in db.execute(sql, {"keys": named}).fetchall()} if named else set()
    return {name: tuple(key for key in rule.keys if key not in again) for name, rule in rules.items()}


def _replaced(db: Engine, job: Job, table: Table, was: TableRun, files: list[str]) -> StagedTable:
    """A table in which the affected rows are those of `files`; unchanged where they are so already."""
    settings, previous = job.settings, job.previous
    assert previous is not None
    place = Target(table, settings.silver_path / table.domain / was.name, job.run.run)
    old = table_version(settings.silver_path, previous, table, was.name)
    return splice_differing(db, Splice(old, was, with_keys(old.keys, AFFECTED), relation(files, old.types)), place)


def _prove(table: Table, built: list[StagedTable], found: Found) -> None:
    """Raises QualityFault unless the tables have the rows and the sums that were counted."""
    for one, rows, side in zip(built, ("rows_out", "set_aside"), ("out", "aside"), strict=True):
        if one.table_run.rows_out != found[rows] or one.table_run.totals != totals(table, found, side):
            raise QualityFault(
                f"silver.{one.table_run.name}: its rows or sums are not those that were counted; "
                "silver stays as it was, run it again"
            )
