"""Bronze's job: copies the source's tables under one snapshot, as Parquet files and one Delta commit per table.

Readers are threads of this process: ADBC and pyarrow leave the interpreter free while they work. Each reads one range
of a table's pages in the snapshot that the control connection exported.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

import pyarrow as pa

from conf.contract import Table
from conf.settings import Postgres, Settings
from pipelines import lake
from pipelines.arrow import arrow_type
from pipelines.errors import ContractFault
from pipelines.lake import TableRun
from pipelines.pg_types import Reading, natural_type, read_as, select_list
from pipelines.reader import Part, Plan, Reader
from pipelines.report import Report
from pipelines.source import Relation, Snapshot, describe

AUDIT = {
    "_rescued": ("string", "What a column could not hold: JSON, column to the source's text"),
    "_batch": ("bigint", "Bronze run"),
}
RANGE_BYTES = 64 * 2**20
READERS = min(4, os.cpu_count() or 1)


def plan(table: Table, relation: Relation) -> Plan:
    """Every declared column as its contract's type, then the source's other columns as their own. Raises
    ContractFault naming each declared column that is missing or of another family."""
    found = {column.name: column for column in relation.columns}
    problems = []
    readings: dict[str, Reading] = {}
    fields = []
    for column in table.columns:
        place = f"{relation.schema}.{relation.name}.{column.name}"
        fields.append(_field(column.name, column.type, column.comment))
        if column.name not in found:
            if not column.optional:
                problems.append(f"column {place} is missing")
        elif (reading := read_as(found[column.name], column.type)) is None:
            problems.append(f"column {place} is {found[column.name].type}, which cannot become {column.type} exactly")
        else:
            readings[column.name] = reading
    declared = {column.name for column in table.columns}
    taken = {name.lower() for name in (*declared, *AUDIT)}
    for extra in (column for column in relation.columns if column.name not in declared):
        if extra.name.lower() in taken:
            place = f"{relation.schema}.{relation.name}.{extra.name}"
            problems.append(f"column {place}: another column of bronze has this name, but for case; rename it")
            continue
        taken.add(extra.name.lower())
        target = natural_type(extra)
        reading = read_as(extra, target)
        assert reading is not None, "every column can be read as its natural type"
        readings[extra.name] = reading
        fields.append(_field(extra.name, target, ""))
    problems += [
        f"column {relation.schema}.{relation.name}.{column.name}: no right to read it"
        for column in relation.columns
        if not column.readable
    ]
    if problems:
        raise ContractFault("; ".join(problems))
    fields += [_field(name, kind, comment) for name, (kind, comment) in AUDIT.items()]
    return Plan(table, relation, f"SELECT {select_list(readings)} FROM {relation.sql}", pa.schema(fields))


def plans(snapshot: Snapshot, schema: str, tables: tuple[Table, ...]) -> list[Plan]:
    """The plans of all tables. Raises one ContractFault that names everything that is missing or does not convert."""
    made, problems = [], []
    for table in tables:
        relation = describe(snapshot.connection, schema, table.source_name)
        if relation is None:
            problems.append(f"table {schema}.{table.source_name} is missing")
            continue
        try:
            made.append(plan(table, relation))
        except ContractFault as fault:
            problems.append(str(fault))
    if problems:
        raise ContractFault(f"the source is not what the contracts say: {'; '.join(problems)}")
    return made


def ranges(relation: Relation) -> list[str]:
    """Conditions on `ctid` that cut the table into page ranges; the last one is open, so that no row is left out."""
    parts = max(1, -(-relation.size // RANGE_BYTES))
    if parts > 1:
        parts = -(-parts // READERS) * READERS
    bounds = [relation.pages * part // parts for part in range(1, parts)]
    lower = ["", *(f"ctid >= '({page},0)'" for page in bounds)]
    upper = [*(f"ctid < '({page},0)'" for page in bounds), ""]
    return [" AND ".join(filter(None, both)) for both in zip(lower, upper, strict=True)]


def load(
    settings: Settings, server: Postgres, snapshot: Snapshot, tables: tuple[Table, ...], run: int, report: Report
) -> Iterator[TableRun]:
    """Reads all tables, commits each when its last range is in. Nothing is written before all of them are checked."""
    todo = plans(snapshot, settings.schema_name, tables)
    for one in todo:
        lake.make_folder(lake.table_path(settings.bronze_path, one.table))
    stop = threading.Event()
    reader = Reader(server, snapshot.exported, run, stop, report)
    parts: dict[str, list[Part]] = {one.table.name: [] for one in todo}
    with ThreadPoolExecutor(READERS, thread_name_prefix="reader") as pool:
        futures: dict[Future[Part], Plan] = {}
        for one in sorted(todo, key=lambda one: -one.relation.size):
            path = lake.table_path(settings.bronze_path, one.table)
            futures |= {pool.submit(reader.read, one, condition, path): one for condition in ranges(one.relation)}
        waiting = Counter(one.table.name for one in futures.values())
        try:
            for future in as_completed(futures):
                one = futures[future]
                parts[one.table.name].append(future.result())
                waiting[one.table.name] -= 1
                if not waiting[one.table.name]:
                    yield _commit(settings, one, parts[one.table.name])
        except BaseException:
            stop.set()
            reader.cancel()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            reader.close()


def _commit(settings: Settings, one: Plan, parts: list[Part]) -> TableRun:
    path = lake.table_path(settings.bronze_path, one.table)
    files = sorted((part.name, part.rows) for part in parts if part.rows)
    rows = sum(rows for _, rows in files)
    version = lake.commit_files(path, one.table, one.schema, files)
    seconds = time.monotonic() - min(part.started for part in parts)
    return TableRun(one.table.name, version, rows, rows, seconds=seconds)


def _field(name: str, kind: str, comment: str) -> pa.Field:
    return pa.field(name, arrow_type(kind), metadata={"comment": comment} if comment else None)
