"""The type-2 history beside a silver table: every version of a row, from when to when it was the present one.

The rows that are `_current` are the table's, always. Runs of bronze that silver has skipped leave their versions, too;
these are judged by what stands in the row, for their parents' past is not kept.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

from conf.contract import Severity, Table
from conf.settings import Settings
from pipelines.core.catalogue import Entry
from pipelines.core.errors import QualityFault, StorageFault
from pipelines.core.names import HISTORY
from pipelines.core.sql import identifier
from pipelines.core.types import type_of
from pipelines.lake import folders, run_log, schema
from pipelines.lake.changes import Splice, Target, changed_keys, differing_keys, splice, with_keys, write
from pipelines.lake.engine import Engine, count, engine, listed, relation, save, within
from pipelines.lake.runs import Mode, Run, TableRun
from pipelines.lake.staging import StagedTable, unchanged_table, verify
from pipelines.lake.versions import TableVersion, table_version
from pipelines.silver.judging import accepted, check_rows, guaranteed
from pipelines.spark.frames import read, read_files, write_parquet
from pipelines.spark.job import Job

COLUMNS = {"_valid_from": "timestamp", "_valid_to": "timestamp", "_current": "boolean"}


def build_history(job: Job, entry: Entry, staged: dict[str, StagedTable]) -> StagedTable:
    """The history of a table whose new version is in `staged`."""
    settings, table, previous, new = job.settings, entry.table, job.previous, staged[entry.table.name].content
    place = Target(table, folders.table_path(settings.silver_path, table, HISTORY), job.run.run)
    known = [one for one in previous.tables if one.name == table.name + HISTORY] if previous else []
    with engine(f"silver.{table.name}{HISTORY}", job.scratch) as db:
        if previous is None or not known:
            return _begun(db, job, new, place)
        was, now = (
            table_version(settings.silver_path, previous, table),
            table_version(settings.silver_path, previous, table, known[0].name),
        )
        steps = [(pair[1], *_step(db, job, entry, staged, pair)) for pair in _skipped(job, table)]
        steps.append((job.upstream, changed_keys(was, new), new.sql))
        columns = {**new.types, **COLUMNS}
        whole = list(columns.items()) != list(now.types.items())
        parts = [f"SELECT {listed(new.keys)} FROM {keys}" for _, keys, _ in steps]
        parts += [f"SELECT {listed(new.keys)} FROM {now.sql}"] if whole else []
        db.execute(f"CREATE TEMP TABLE k AS {' UNION '.join(parts)}")
        if not count(db, "k"):
            return unchanged_table(known[0], table, place.path)
        named = ", ".join(f"{_cast(name, kind, now.types)} AS {identifier(name)}" for name, kind in columns.items())
        db.execute(f"CREATE TEMP TABLE h AS SELECT {named} FROM {within(now.sql, now.keys, 'k')}")
        db.execute("CREATE TEMP TABLE touched AS SELECT * FROM k WHERE false")
        for index, (run, keys, rows) in enumerate(steps):
            some = "k" if index == len(steps) - 1 else keys
            _turn(db, new, some, rows, _moment(now, run.started))
        wrong = differing_keys("(SELECT * FROM h WHERE _current)", within(new.sql, new.keys, "k"), new, new)
        if count(db, wrong):
            raise QualityFault(f"silver.{place.path.name}: its current rows are not those of silver.{table.name}")
        if whole:
            return _anew(db, "h", new, place, replace(known[0], mode=Mode.FULL, how="its columns changed"))
        if not count(db, "touched"):
            return unchanged_table(known[0], table, place.path)
        db.execute("CREATE TEMP TABLE t AS SELECT DISTINCT * FROM touched")
        replaced = with_keys(now.keys, "t")
        return splice(db, Splice(now, known[0], replaced, replaced.of("h")), place)


def _begun(db: Engine, job: Job, new: TableVersion, place: Target) -> StagedTable:
    """The first version of a history: all rows, since this run."""
    since = f"'{job.upstream.started.isoformat()}'::timestamptz"
    rows = f"(SELECT *, {since} AS _valid_from, NULL::timestamptz AS _valid_to, true AS _current FROM {new.sql})"
    done = TableRun(place.path.name, 0, 0, 0, full_at=job.run.started, how="begun")
    return _anew(db, rows, new, place, done)


def _anew(db: Engine, rows: str, new: TableVersion, place: Target, done: TableRun) -> StagedTable:
    """A history that is made of `rows` and nothing else."""
    size, files = count(db, rows), write(db, rows, place)
    built = StagedTable(
        replace(done, rows_in=size, rows_out=size),
        place.table,
        place.path,
        schema.schema_of(place.table, COLUMNS),
        files,
    )
    return verify(built, {**new.types, **COLUMNS}, new.keys, size, {})


def _cast(name: str, kind: str, known: Mapping[str, str]) -> str:
    """SQL of a column of older versions as it is declared now: null where they did not have it, or not so."""
    value = identifier(name) if name in known else "NULL"
    return value if known.get(name) == kind else f"TRY_CAST({value} AS {type_of(kind).duckdb})"


def _skipped(job: Job, table: Table) -> list[tuple[Run, Run]]:
    """The runs of bronze after the one that silver has read, but for the last, each with the one before it."""
    settings = job.settings
    if job.origin is None:
        return []
    runs = [
        run
        for run in run_log.read_runs(settings.bronze_path, domain=job.origin.domain)
        if run.lake == job.origin.lake and job.origin.run <= run.run < job.upstream.run
    ]
    needed = {(column.name, column.type) for one in table.inputs for column in one.columns}
    there = [run for run in runs if "key" in guaranteed(run, table) and _is_there(settings, run, table, needed)]
    return list(pairwise(there))


def _is_there(settings: Settings, run: Run, table: Table, needed: set[tuple[str, str]]) -> bool:
    """Whether a run's files are there, with the columns that the transform needs today."""
    try:
        run_log.check_tables("bronze", settings.bronze_path, run)
    except StorageFault:
        return False
    return needed <= {(column.name, column.type) for column in run.table(table.inputs[0].name).columns}


def _step(db: Engine, job: Job, entry: Entry, staged: dict[str, StagedTable], runs: tuple[Run, Run]) -> tuple[str, str]:
    """What a run of bronze that was skipped has changed: SQL of the keys, and of the rows that silver would have."""
    settings, folder, table, (source,), (before, run) = job.settings, job.scratch, entry.table, entry.table.inputs, runs
    old, new = table_version(settings.bronze_path, before, source), table_version(settings.bronze_path, run, source)
    name = identifier(f"changed {run.run}")
    db.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM {changed_keys(old, new)}")
    named = ", ".join(f"{identifier(table[key].made_from)} AS {identifier(key)}" for key in table.keys)
    keys = f"(SELECT {named} FROM {name})"
    types = staged[table.name].content.types
    if not count(db, name):
        return keys, relation([], types)
    file = folder / f"{table.name}.{run.run}.parquet"
    save(db, within(new.sql, new.keys, name), file)
    spark, made = job.session(), folder / f"{table.name}.{run.run}"
    rows = {one: built.table_run.rows_out for one, built in staged.items()}
    frames = [read_files(spark, [str(file)], new.types)]
    judged = check_rows(run, entry, frames, lambda one: read(spark, staged[one].content), rows)
    of_parents = {
        f"{reference.table.name}:{why}" for _, reference in table.references for why in ("missing", "quarantined")
    }
    checks = [replace(one, severity=Severity.WARN) if one.name in of_parents else one for one in judged.checks]
    with folders.storage(f"folder {made}"):
        made.mkdir()
    files = write_parquet(accepted(settings, replace(judged, checks=checks), table), made)
    return keys, relation([str(file) for file in files], types)


def _moment(history: TableVersion, at: datetime) -> str:
    """When a run's versions begin: at its start, but after all that is known, whatever the clock says."""
    last = "SELECT max(greatest(_valid_from, coalesce(_valid_to, _valid_from))) FROM"
    return (
        f"(SELECT greatest('{at.isoformat()}'::timestamptz, ({last} {history.sql}) + INTERVAL 1 microsecond, "
        f"({last} h) + INTERVAL 1 microsecond))"
    )


def _turn(db: Engine, table: TableVersion, keys: str, rows: str, moment: str) -> None:
    """Ends, in the table `h`, the current version of each key that `rows` has otherwise or not at all, and begins the
    one that it has."""
    now = within("(SELECT * FROM h WHERE _current)", table.keys, keys)
    differing = differing_keys(now, within(rows, table.keys, keys), table, table)
    db.execute(f"CREATE OR REPLACE TEMP TABLE d AS SELECT * FROM {differing}")
    db.execute(f"CREATE OR REPLACE TEMP TABLE m AS SELECT {moment} AS moment")
    these = listed(table.keys)
    among = f"({these}) IN (SELECT ({these}) FROM d)" if len(table.keys) > 1 else f"{these} IN (SELECT {these} FROM d)"
    db.execute(f"UPDATE h SET _valid_to = (SELECT moment FROM m), _current = false WHERE _current AND {among}")
    columns = listed(table.types)
    began = f"SELECT {columns}, (SELECT moment FROM m) AS _valid_from, true AS _current"
    db.execute(f"INSERT INTO h BY NAME {began} FROM {within(rows, table.keys, 'd')}")
    db.execute("INSERT INTO touched SELECT * FROM d")
