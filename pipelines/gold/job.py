"""Gold's job: tables that answer questions, built from silver's last complete run, in full or what changed (ADR 16)."""

from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pyspark.sql import functions as F

from conf.contract import Table
from pipelines.core.catalogue import Entry
from pipelines.core.errors import MemoryFault
from pipelines.core.sql import identifier
from pipelines.gold.proof import prove_one_row_per, prove_totals
from pipelines.lake import changes, folders, schema
from pipelines.lake.engine import Engine, count, engine, listed, relation, renamed, save, within
from pipelines.lake.runs import MUCH_CHANGED, Job, TableRun, reason_for_full_derived
from pipelines.lake.versions import StagedTable, TableVersion, table_version, unchanged_table, verify
from pipelines.spark import analysis, broadcast
from pipelines.spark.analysis import transformed
from pipelines.spark.faults import spark_faults
from pipelines.spark.frames import read, read_files, write_files, write_parquet
from pipelines.spark.remote import counted
from pipelines.spark.session import configured

NO_HINTS = "spark.sql.optimizer.disableHints"  # Spark then joins as it would without the `F.broadcast` of a transform
ONLY_SHUFFLES = {NO_HINTS: "true", "spark.sql.autoBroadcastJoinThreshold": "-1"}


def build(job: Job, entries: tuple[Entry, ...]) -> Generator[StagedTable, None, None]:
    """Builds the tables. Raises QualityFault if a join lost or multiplied a row, or a cent."""
    analysis.check(job, entries, job.settings.silver_path)
    for entry in entries:
        started, table = job.report.clock(), entry.table
        job.report.progress("gold", table.name)
        origin = table.one_row_per or table.inputs[0]
        job.report.expect("gold", table.name, job.upstream.table(origin.name).rows_out)
        why = reason_for_full_derived(job.settings, job, job.origin, table.name)
        built = None if why else _apply_changes(job, entry)
        built = built or _build_in_full(job, entry, why or MUCH_CHANGED)
        yield replace(built, table_run=replace(built.table_run, seconds=job.report.clock() - started))


def _build_in_full(job: Job, entry: Entry, why: str) -> StagedTable:
    """A table from all rows of silver, whatever its last version has."""
    table, spark, silver_path = entry.table, job.session(), job.settings.silver_path
    inputs = [read(spark, table_version(silver_path, job.upstream, source)) for source in table.inputs]
    path = folders.table_path(job.settings.gold_path, table)

    def written(joins: Mapping[str, str]) -> tuple[list[str], int]:
        with configured(spark, joins), spark_faults():
            rows, counts = counted(transformed(entry, inputs), F.count(F.lit(1)).alias("rows"))
            return write_files(rows, path, job.run.run), counts()["rows"]

    try:
        files, count = written({NO_HINTS: str(not _fits(job, table)).lower()})
    except MemoryFault as fault:
        job.report.again(f"gold.{table.name}: {fault}; trying again without a broadcast")
        files, count = written(ONLY_SHUFFLES)
    table_run = TableRun(table.name, 0, count, count, full_at=job.run.started, how=f"full: {why}")
    built = verify(StagedTable(table_run, table, path, files), schema.types_of(table, {}), count, {})
    return prove_one_row_per(job, built) if table.one_row_per else prove_totals(job, built)


def _fits(job: Job, table: Table) -> bool:
    """Whether the tables that are joined to the rows of `one_row_per` can be broadcast."""
    sizes = [_size(job, source) for source in table.inputs if source != table.one_row_per]
    if not sizes:
        return True
    needed, there = broadcast.needed_bytes(sizes), broadcast.available_bytes(job.settings, job.session())
    if job.settings.log == "debug":
        joined = "with a broadcast" if needed <= there else "without a broadcast"
        figures = f"it needs {needed / 2**20:,.0f} MB, there are {there / 2**20:,.0f} MB; {sizes}"
        job.report.step(f"gold.{table.name}: joined {joined}: {figures}")
    return needed <= there


def _size(job: Job, table: Table) -> broadcast.Size:
    """In Spark a value takes eight bytes, a text as many more as it has, rounded up."""
    content = table_version(job.settings.silver_path, job.upstream, table)
    texts = [
        f"coalesce(avg((strlen({identifier(name)}) + 7) // 8 * 8), 0)"
        for name, kind in content.types.items()
        if kind == "string"
    ]
    with engine(f"silver.{table.name}") as db:
        (text_bytes,) = db.execute(f"SELECT {' + '.join(['0', *texts])} FROM {content.sql}").fetchone() or (0,)
    file_bytes = sum(Path(file).stat().st_size for file in content.files)
    return broadcast.Size(
        job.upstream.table(table.name).rows_out, 8 * len(content.types) + float(text_bytes), file_bytes
    )


def _apply_changes(job: Job, entry: Entry) -> StagedTable | None:
    """A table with what changed in its inputs since the previous run; None if too much did, or if its rows are not made
    of one input and what this refers to."""
    settings, table, origin, previous = job.settings, entry.table, entry.table.one_row_per, job.previous
    assert previous is not None and job.origin is not None
    recorded, path = previous.table(table.name), folders.table_path(settings.gold_path, table)
    old, new = (
        {source.module: table_version(settings.silver_path, run, source) for source in table.inputs}
        for run in (job.origin, job.upstream)
    )
    unchanged = unchanged_table(recorded, table, path)
    if all(old[module].files == new[module].files for module in new):
        return unchanged
    lineage = {source.module: source for source in _lineage(origin, new)} if origin else {}
    if origin is None or lineage.keys() != new.keys():
        return None
    with engine(f"gold.{table.name}", job.scratch) as db:
        affected = dict[str, str]()  # by module, a relation of keys
        for module, source in lineage.items():
            affected[module] = db.keep(_affected_keys(source, old[module], new[module], affected))
        keys = affected[origin.module]
        number = count(db, keys)
        if number > changes.CHANGED_SHARE * max(recorded.rows_out, 1):
            return None
        if not number:
            return prove_one_row_per(job, unchanged)
        files = _save_inputs(db, [*lineage.values()], new, keys, job.scratch / table.name)
        spark = job.session()
        inputs = [read_files(spark, [files[module]], version.types) for module, version in new.items()]
        written = write_parquet(transformed(entry, inputs), job.scratch / table.name)
        content = table_version(settings.gold_path, previous, table)
        rows = relation(written, content.types)
        replaced = changes.Selection(table.keys, f"(SELECT {renamed(origin.keys, table.keys)} FROM {keys})")
        change = changes.Splice(content, recorded, replaced, rows)
        return prove_one_row_per(job, changes.splice_differing(db, change, changes.Target(table, path, job.run.run)))


def _lineage(table: Table, inputs: Collection[str]) -> Iterator[Table]:
    """The inputs that a table refers to, however far, each after those that it refers to itself; the table last."""
    for _, reference in table.references:
        if reference.table.module in inputs:
            yield from _lineage(reference.table, inputs)
    yield table


def _affected_keys(source: Table, old: TableVersion, new: TableVersion, affected: Mapping[str, str]) -> str:
    """SQL of an input's affected keys: those whose row changed, or refers to a row that is `affected`."""
    parts = [f"SELECT * FROM {changes.changed_keys(old, new)}"]
    for column, reference in source.references:
        if keys := affected.get(reference.table.module):
            children = changes.rows_referring_to(new.sql, column, keys)
            parts.append(f"SELECT {listed(source.keys)} FROM {children}")
    return " UNION ".join(parts)


def _save_inputs(
    db: Engine, lineage: list[Table], new: Mapping[str, TableVersion], keys: str, place: Path
) -> dict[str, str]:
    """Saves the rows of the last table that have the keys of a relation and, of the others, those that they refer to; a
    file each, beside `place`."""
    wanted, files = {lineage[-1].module: [f"SELECT * FROM {keys}"]}, dict[str, str]()
    for source in reversed(lineage):
        content, file = new[source.module], place.with_suffix(f".{source.name}.parquet")
        save(db, within(content.sql, source.keys, f"({' UNION '.join(wanted[source.module])})"), file)
        files[source.module] = str(file)
        rows = relation([str(file)], content.types)
        for column, reference in source.references:
            named = renamed(column.foreign_key, reference.table.keys)
            wanted.setdefault(reference.table.module, []).append(f"SELECT {named} FROM {rows}")
    return files
