"""Gold from what changed in silver, for tables of one row per row of an input: a row is made anew where the row that it
comes from changed, or one that this refers to, however far.
"""

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
from pipelines.lake.staging import StagedTable, unchanged_table
from pipelines.lake.versions import TableVersion, table_version
from pipelines.spark.frames import read_files, write_parquet
from pipelines.spark.job import Job


def apply_changes(job: Job, entry: Entry) -> StagedTable | None:
    """A table with what changed in its inputs since the run before; None where much did, or any other table than those
    that its rows refer to. Raises QualityFault where a join lost or multiplied a row, or a cent."""
    settings, table, previous = job.settings, entry.table, job.previous
    assert previous is not None and job.origin is not None
    was, path = previous.table(table.name), folders.table_path(settings.gold_path, table)
    old = {one.module: table_version(settings.silver_path, job.origin, one) for one in table.inputs}
    new = {one.module: table_version(settings.silver_path, job.upstream, one) for one in table.inputs}
    if all(old[module].files == new[module].files for module in new):
        return unchanged_table(was, table, path)
    origin = table.one_row_per
    if origin is None or not reaches_all(table, origin):
        return None
    folder = job.scratch / table.name
    with folders.storage(f"folder {folder}"):
        folder.mkdir()
    with engine(f"gold.{table.name}", folder) as db:
        some = _affected(db, table, old, new)
        if some > CHANGED_SHARE * max(was.rows_out, 1):
            return None
        if not some:
            return proof.like(job, unchanged_table(was, table, path), origin)
        files = _inputs(db, table, origin, new, folder)
        spark = job.session()
        frames = {module: read_files(spark, [str(file)], new[module].types) for module, file in files.items()}
        made = write_parquet(proof.transformed(entry, frames), folder / "made")
        content = table_version(settings.gold_path, previous, table)
        rows = relation([str(file) for file in made], content.types)
        named = ", ".join(
            f"{identifier(key)} AS {identifier(own)}" for key, own in zip(origin.keys, table.keys, strict=True)
        )
        keys = f"(SELECT {named} FROM {_name(origin)})"
        change = Splice(content, was, with_keys(table.keys, keys), rows)
        return proof.like(job, splice_differing(db, change, Target(table, path, job.run.run)), origin)


def reaches_all(table: Table, origin: Table) -> bool:
    """Whether references lead from an input to all the others."""
    reached, more = {origin.module}, [origin]
    while more:
        for _, reference in more.pop().references:
            if reference.table.module not in reached:
                reached.add(reference.table.module)
                more.append(reference.table)
    return {one.module for one in table.inputs} <= reached


def parents_first(table: Table) -> list[Table]:
    """The inputs of a table, each after those that it refers to."""
    order: list[Table] = []

    def place(one: Table) -> None:
        for _, reference in one.references:
            place(reference.table)
        if one in table.inputs and one not in order:
            order.append(one)

    for one in table.inputs:
        place(one)
    return order


def _name(table: Table) -> str:
    return identifier(f"affected {table.name}")


def _affected(db: Engine, table: Table, old: dict[str, TableVersion], new: dict[str, TableVersion]) -> int:
    """Makes a table of the keys of each input whose row changed, or refers to one that did. How many of the last."""
    for one in parents_first(table):
        parts = [f"SELECT * FROM {changed_keys(old[one.module], new[one.module])}"]
        parts += [
            f"SELECT {listed(one.keys)} FROM {rows_referring_to(new[one.module].sql, column, _name(reference.table))}"
            for column, reference in one.references
            if reference.table in table.inputs
        ]
        db.execute(f"CREATE TEMP TABLE {_name(one)} AS {' UNION '.join(parts)}")
    assert table.one_row_per is not None
    return count(db, _name(table.one_row_per))


def _inputs(db: Engine, table: Table, origin: Table, new: dict[str, TableVersion], folder: Path) -> dict[str, Path]:
    """The affected rows of the origin and, of the other inputs, those that they refer to; a file each."""
    wanted: dict[str, list[str]] = {origin.module: [f"SELECT * FROM {_name(origin)}"]}
    files: dict[str, Path] = {}
    for one in reversed(parents_first(table)):
        content = new[one.module]
        files[one.module] = folder / f"{one.name}.parquet"
        save(db, within(content.sql, one.keys, f"({' UNION '.join(wanted[one.module])})"), files[one.module])
        rows = relation([str(files[one.module])], content.types)
        for column, reference in one.references:
            pairs = zip(column.foreign_key, reference.table.keys, strict=True)
            named = ", ".join(f"{identifier(name)} AS {identifier(key)}" for name, key in pairs)
            wanted.setdefault(reference.table.module, []).append(f"SELECT {named} FROM {rows}")
    return {one.module: files[one.module] for one in table.inputs}
