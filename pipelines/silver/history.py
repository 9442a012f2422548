"""The SCD2 history beside a silver table: every version of a row, from when to when it was the current one.

An account through two nights (`_valid_to` and `_valid_from` are the starts of the bronze runs that saw the change):

    night 1, silver has (7, corrente)      7  corrente  2024-03-01 02:00  -                 current
    night 2, silver has (7, poupanca)      7  corrente  2024-03-01 02:00  2024-03-02 02:00
                                           7  poupanca  2024-03-02 02:00  -                 current
    a night later it is gone from silver:  both versions stay, both have ended, none is current

The rows that are `_current` are the table's, always; the run proves it. Runs of bronze that silver has skipped leave
their versions, too. These rows are judged without asking for their parents, whose past is not kept.

One night in DuckDB: `keys` are all keys that may have changed, `history` their versions. There is a step for each run
of bronze. `touched` collects the keys that any step changed; only files that hold one of them are written again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from string import Template

from conf.contract import Severity, Table
from pipelines.core.catalogue import Entry
from pipelines.core.errors import QualityFault, StorageFault
from pipelines.core.names import HISTORY
from pipelines.core.sql import identifier, read_sql
from pipelines.core.types import type_of
from pipelines.lake import folders, run_log
from pipelines.lake.changes import Selection, Splice, Target, changed_keys, differing_keys, splice, write
from pipelines.lake.engine import Engine, count, engine, listed, relation, renamed, within
from pipelines.lake.runs import Job, Mode, Run, TableRun, table_runs
from pipelines.lake.versions import StagedTable, TableVersion, table_version, unchanged_table, verify
from pipelines.silver.judging import Tables, accepted, bronze_rows, check_rows, guaranteed
from pipelines.spark.frames import write_parquet

STEP = Template(read_sql(__file__, "history_step.sql"))

HISTORY_COLUMNS = {"_valid_from": "timestamp", "_valid_to": "timestamp", "_current": "boolean"}


@dataclass(frozen=True)
class Step:
    """What a run of bronze changed: SQL of keys that may have changed, and of the rows that silver then has."""

    run: Run
    keys: str
    rows: str


def build_history(job: Job, entry: Entry, staged: Tables) -> StagedTable:
    """The history of a table whose new version is in `staged`. Raises QualityFault if its current rows are others."""
    table, previous, new = entry.table, job.previous, staged[entry.table.name].content
    target = Target(table, folders.table_path(job.settings.silver_path, table, HISTORY), job.run.run)
    with engine(f"silver.{target.path.name}", job.scratch) as db:
        recorded = table_runs(previous).get(target.path.name)
        if previous is None or recorded is None:
            return _begin(db, job, new, target)
        old = table_version(job.settings.silver_path, previous, table, target.path.name)
        last = changed_keys(table_version(job.settings.silver_path, previous, table), new)
        skipped = [_step(db, job, entry, staged, runs) for runs in _skipped(job, table)]
        columns = {**new.types, **HISTORY_COLUMNS}
        same_columns = list(columns.items()) == list(old.types.items())
        relations = [*(step.keys for step in skipped), last, *([] if same_columns else [old.sql])]
        keys = " UNION ".join(f"SELECT {listed(new.keys)} FROM {relation}" for relation in relations)
        db.execute(f"CREATE TEMP TABLE keys AS {keys}")
        if not count(db, "keys"):
            return unchanged_table(recorded, table, target.path)
        _load(db, old, columns)
        for step in (*skipped, Step(job.upstream, "keys", new.sql)):
            _apply(db, step, new)
        wrong = differing_keys("(SELECT * FROM history WHERE _current)", within(new.sql, new.keys, "keys"), new, new)
        if count(db, wrong):
            raise QualityFault(f"silver.{target.path.name}: its current rows are not those of silver.{table.name}")
        if not same_columns:
            table_run = replace(recorded, mode=Mode.FULL, how="its columns changed")
            return _written_in_full(db, "history", new, target, table_run)
        if not count(db, "touched"):
            return unchanged_table(recorded, table, target.path)
        replaced = Selection(old.keys, "touched")
        return splice(db, Splice(old, recorded, replaced, replaced.of("history")), target)


def _begin(db: Engine, job: Job, new: TableVersion, target: Target) -> StagedTable:
    """The first version of a history: all rows, valid since this run of bronze."""
    since = f"'{job.upstream.started.isoformat()}'::timestamptz"
    rows = f"(SELECT *, {since} AS _valid_from, NULL::timestamptz AS _valid_to, true AS _current FROM {new.sql})"
    table_run = TableRun(target.path.name, 0, 0, 0, full_at=job.run.started, how="begun")
    return _written_in_full(db, rows, new, target, table_run)


def _written_in_full(db: Engine, rows: str, new: TableVersion, target: Target, table_run: TableRun) -> StagedTable:
    """A history that is made of `rows` and nothing else."""
    size, files = count(db, rows), write(db, rows, target)
    table_run = replace(table_run, rows_in=size, rows_out=size)
    built = StagedTable(table_run, target.table, target.path, files)
    return verify(built, {**new.types, **HISTORY_COLUMNS}, size, {})


def _load(db: Engine, old: TableVersion, columns: Mapping[str, str]) -> None:
    """Makes the tables that the steps change. `history` has the columns that are declared now, `moment` begins as the
    last one that the history knows."""
    values = ", ".join(f"{_cast(name, kind, old.types)} AS {identifier(name)}" for name, kind in columns.items())
    db.execute(f"CREATE TEMP TABLE history AS SELECT {values} FROM {within(old.sql, old.keys, 'keys')}")
    db.execute(f"CREATE TEMP TABLE moment AS SELECT max(coalesce(_valid_to, _valid_from)) AS value FROM {old.sql}")
    db.execute("CREATE TEMP TABLE touched AS SELECT * FROM keys WHERE false")


def _cast(name: str, kind: str, known: Mapping[str, str]) -> str:
    """SQL of a column of older versions as it is declared now: null if they lack it, or if a value does not convert."""
    value = identifier(name) if name in known else "NULL"
    return value if known.get(name) == kind else f"TRY_CAST({value} AS {type_of(kind).duckdb})"


def _apply(db: Engine, step: Step, table: TableVersion) -> None:
    """Ends, in `history`, the current version of each key that the step has with other values or not at all, and begins
    the version that it has."""
    current = within("(SELECT * FROM history WHERE _current)", table.keys, step.keys)
    changed = differing_keys(current, within(step.rows, table.keys, step.keys), table, table)
    names = {"keys": listed(table.keys), "columns": listed(table.types), "rows": step.rows, "changed": changed}
    same_key = " AND ".join(f"history.{identifier(key)} = changed.{identifier(key)}" for key in table.keys)
    db.execute(STEP.substitute(names, same_key=same_key, started=step.run.started.isoformat()))


def _skipped(job: Job, table: Table) -> list[tuple[Run, Run]]:
    """The runs of bronze that silver has not read, except the last, each with the run before it."""
    if job.origin is None:
        return []
    first, last = job.origin.run, job.upstream.run
    runs = run_log.read_runs(job.settings.bronze_path, domain=job.origin.domain)
    runs = [run for run in runs if run.lake == job.origin.lake and first <= run.run < last]
    return list(pairwise(run for run in runs if "key" in guaranteed(run, table) and _can_be_read(job, run, table)))


def _can_be_read(job: Job, run: Run, table: Table) -> bool:
    """Whether a run's files are still there, with the columns that the transform needs today."""
    try:
        run_log.check_tables("bronze", job.settings.bronze_path, run)
    except StorageFault:
        return False
    needed = {(column.name, column.type) for source in table.inputs for column in source.columns}
    return needed <= {(column.name, column.type) for column in run.table(table.inputs[0].name).columns}


def _step(db: Engine, job: Job, entry: Entry, staged: Tables, runs: tuple[Run, Run]) -> Step:
    """What the second of two runs of bronze has changed; silver has skipped it."""
    table, (source,), run = entry.table, entry.table.inputs, runs[-1]
    old, new = (table_version(job.settings.bronze_path, bronze_run, source) for bronze_run in runs)
    changed = db.keep(f"SELECT * FROM {changed_keys(old, new)}")
    named = renamed((table[key].made_from for key in table.keys), table.keys)
    keys, types = f"(SELECT {named} FROM {changed})", staged[table.name].content.types
    if (frame := bronze_rows(db, job, table, run, changed)) is None:
        return Step(run, keys, relation([], types))
    checked = check_rows(run, entry, [frame], staged)
    parents = [reference.table.name for _, reference in table.references]
    of_parents = {f"{parent}:{problem}" for parent in parents for problem in ("missing", "quarantined")}
    checks = [replace(check, severity=Severity.WARN) if check.name in of_parents else check for check in checked.checks]
    rows = accepted(job.settings, replace(checked, checks=tuple(checks)))
    files = write_parquet(rows, job.scratch / f"{table.name}.{run.run}")
    return Step(run, keys, relation(files, types))
