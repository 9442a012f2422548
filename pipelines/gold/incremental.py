"""Gold from what changed in silver, for tables of one row per row of an input.

A row is made anew if the row that it comes from changed, or one that this refers to, however far.
"""

from collections.abc import Mapping
from pathlib import Path

from conf.contract import Table
from pipelines.core.catalogue import Entry
from pipelines.core.sql import identifier
from pipelines.gold import proof
from pipelines.lake import folders
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
from pipelines.lake.versions import StagedTable, TableVersion, table_version, unchanged_table
from pipelines.spark.frames import read_files, write_parquet
from pipelines.spark.job import Job


def apply_changes(job: Job, entry: Entry) -> StagedTable | None:
    """A table with what changed in its inputs since the previous run; None if too much did, or if its rows are not made
    of one input and what this refers to. Raises QualityFault if a join lost or multiplied a row, or a cent."""
    settings, table, previous = job.settings, entry.table, job.previous
    assert previous is not None and job.origin is not None
    recorded, path = previous.table(table.name), folders.table_path(settings.gold_path, table)
    old = {source.module: table_version(settings.silver_path, job.origin, source) for source in table.inputs}
    new = {source.module: table_version(settings.silver_path, job.upstream, source) for source in table.inputs}
    unchanged = unchanged_table(recorded, table, path)
    if all(old[module].files == new[module].files for module in new):
        return unchanged
    if table.one_row_per is None or not refers_to_all_inputs(table):
        return None
    scratch = job.scratch / table.name
    with folders.storage(f"folder {scratch}"):
        scratch.mkdir()
    with engine(f"gold.{table.name}", scratch) as db:
        affected = _affected(db, table, old, new)
        if affected > CHANGED_SHARE * max(recorded.rows_out, 1):
            return None
        if not affected:
            return proof.prove_one_row_per(job, unchanged)
        spark = job.session()
        inputs = {
            module: read_files(spark, [str(file)], new[module].types)
            for module, file in _save_inputs(db, table, new, scratch).items()
        }
        files = write_parquet(proof.transformed(entry, inputs), scratch / "rows")
        content = table_version(settings.gold_path, previous, table)
        rows = relation([str(file) for file in files], content.types)
        pairs = zip(table.one_row_per.keys, table.keys, strict=True)
        named = ", ".join(f"{identifier(key)} AS {identifier(own)}" for key, own in pairs)
        keys = f"(SELECT {named} FROM {_affected_keys(table.one_row_per)})"
        change = Splice(content, recorded, with_keys(table.keys, keys), rows)
        return proof.prove_one_row_per(job, splice_differing(db, change, Target(table, path, job.run.run)))


def refers_to_all_inputs(table: Table) -> bool:
    """Whether references lead from `one_row_per` to all other inputs."""
    assert table.one_row_per is not None
    reached, waiting = {table.one_row_per.module}, [table.one_row_per]
    while waiting:
        for _, reference in waiting.pop().references:
            if reference.table.module not in reached:
                reached.add(reference.table.module)
                waiting.append(reference.table)
    return {source.module for source in table.inputs} <= reached


def parents_first(table: Table) -> list[Table]:
    """The inputs of a table, each after those that it refers to."""
    order: list[Table] = []

    def place(source: Table) -> None:
        for _, reference in source.references:
            place(reference.table)
        if source in table.inputs and source not in order:
            order.append(source)

    for source in table.inputs:
        place(source)
    return order


def _affected_keys(table: Table) -> str:
    """The name of the temporary table with the affected keys of an input."""
    return identifier(f"affected {table.name}")


def _affected(db: Engine, table: Table, old: Mapping[str, TableVersion], new: Mapping[str, TableVersion]) -> int:
    """Makes a table of affected keys for each input: those whose row changed, or refers to an affected one. How many
    are affected in `one_row_per`."""
    for source in parents_first(table):
        parts = [f"SELECT * FROM {changed_keys(old[source.module], new[source.module])}"]
        for column, reference in source.references:
            if reference.table in table.inputs:
                children = rows_referring_to(new[source.module].sql, column, _affected_keys(reference.table))
                parts.append(f"SELECT {listed(source.keys)} FROM {children}")
        db.execute(f"CREATE TEMP TABLE {_affected_keys(source)} AS {' UNION '.join(parts)}")
    assert table.one_row_per is not None
    return count(db, _affected_keys(table.one_row_per))


def _save_inputs(db: Engine, table: Table, new: Mapping[str, TableVersion], folder: Path) -> dict[str, Path]:
    """Saves the affected rows of `one_row_per` and, of the other inputs, the rows that they refer to; a file each."""
    assert table.one_row_per is not None
    wanted = {table.one_row_per.module: [f"SELECT * FROM {_affected_keys(table.one_row_per)}"]}
    files: dict[str, Path] = {}
    for source in reversed(parents_first(table)):
        content, file = new[source.module], folder / f"{source.name}.parquet"
        save(db, within(content.sql, source.keys, f"({' UNION '.join(wanted[source.module])})"), file)
        rows = relation([str(file)], content.types)
        for column, reference in source.references:
            pairs = zip(column.foreign_key, reference.table.keys, strict=True)
            named = ", ".join(f"{identifier(name)} AS {identifier(key)}" for name, key in pairs)
            wanted.setdefault(reference.table.module, []).append(f"SELECT {named} FROM {rows}")
        files[source.module] = file
    return {source.module: files[source.module] for source in table.inputs}
