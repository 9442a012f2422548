"""DuckDB, the second engine: small SQL over Parquet files, with its memory and its temporary folder bounded."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import duckdb

from pipelines.core import shortage
from pipelines.core.errors import StorageFault
from pipelines.core.sql import duckdb_literal, identifier
from pipelines.core.types import type_of
from pipelines.lake import folders

MEMORY = 1000  # megabytes

AT_ONCE = 8  # works that share it

Read = TypeVar("Read")

# DuckDB may change its hash from version to version: checksums compare only within one.
HASHING = f"duckdb {duckdb.__version__}"


class Engine:
    """A database whose queries run in a thread of their own, so that a signal ends a query that works."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, thread: ThreadPoolExecutor) -> None:
        self._connection, self._thread, self._kept = connection, thread, itertools.count(1)

    def execute(self, sql: str, parameters: object = None) -> duckdb.DuckDBPyConnection:
        """Runs SQL to its end. The connection, which has the result. Raises duckdb.Error."""
        running = self._thread.submit(self._connection.execute, sql, parameters)
        try:
            return running.result()
        except (KeyboardInterrupt, SystemExit):
            self._connection.interrupt()
            wait([running])
            raise

    def keep(self, query: str) -> str:
        """Keeps the rows of a query in a temporary table of its own. Its name, as SQL writes it."""
        name = identifier(f"kept {next(self._kept)}")
        self.execute(f"CREATE TEMP TABLE {name} AS {query}")
        return name

    @contextmanager
    def side_by_side(self, works: Sequence[Callable[["Engine"], Read]]) -> Iterator[list[Future[Read]]]:
        """What becomes of works, each with a connection of its own to this database, which sees no temporary table of
        this one: as many at a time as there are cores. If the context fails, all end."""
        number = max(1, min(len(works), os.cpu_count() or 1, AT_ONCE))
        with ExitStack() as stack, ThreadPoolExecutor(number) as pool:
            idle, siblings = SimpleQueue["Engine"](), list[Engine]()
            for _ in range(number):
                connection = stack.enter_context(self._connection.cursor())
                siblings.append(Engine(connection, stack.enter_context(ThreadPoolExecutor(1))))
                idle.put(siblings[-1])

            def answer(work: Callable[["Engine"], Read]) -> Read:
                sibling = idle.get()
                try:
                    return work(sibling)
                finally:
                    idle.put(sibling)

            working = list[Future[Read]]()
            try:
                working.extend(pool.submit(answer, work) for work in works)
                yield working
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                while running := [future for future in working if not future.done()]:
                    for sibling in siblings:
                        sibling.interrupt()  # it is lost on one whose query is about to begin
                    wait(running, 0.1)
                raise

    def interrupt(self) -> None:
        """Ends the query that works now, if any, which then raises."""
        with suppress(duckdb.Error):  # it may be closed
            self._connection.interrupt()


@contextmanager
def engine(what: str, scratch: Path | None = None) -> Iterator[Engine]:
    """A database in bounded memory that spills to `scratch`, or else to a folder of its own in TMPDIR. Its errors
    become a StorageFault, or a MemoryFault, that names `what`."""
    try:
        with nullcontext(scratch) if scratch else folders.temporary() as spill, ThreadPoolExecutor(1) as thread:
            # Not in this thread: DuckDB makes a RuntimeError of a signal that it hears.
            database = thread.submit(_database, spill).result()
            with database.cursor() as connection:  # which has temporary tables of its own
                yield Engine(connection, thread)
        _IDLE.append(database)
    except duckdb.Error as error:
        if fault := shortage.fault_of(error, what):
            raise fault from error
        is_of_content = isinstance(error, (duckdb.ProgrammingError, duckdb.DataError))
        look = (
            "what the files have; LAKEHOUSE_LOG=debug shows more"
            if is_of_content
            else "the files and the disk's free space"
        )
        raise StorageFault(f"{what}: {type(error).__name__}; check {look}") from error


# The last databases whose work succeeded: a new one costs as much as ten small queries.
_IDLE: deque[duckdb.DuckDBPyConnection] = deque(maxlen=4)


def _database(scratch: Path) -> duckdb.DuckDBPyConnection:
    """An idle database, or a new one, which spills to `scratch` from now on."""
    spill = f"SET temp_directory = {duckdb_literal(str(scratch))}"
    while _IDLE:
        with suppress(IndexError, duckdb.Error):  # another thread took it; it has spilled elsewhere
            return _IDLE.pop().execute(spill)
    return duckdb.connect(config={"memory_limit": f"{MEMORY}MB"}).execute(spill)


def relation(files: Sequence[str], columns: Mapping[str, str], where: str = "true", file: str = "") -> str:
    """SQL that reads columns (name to Spark SQL type) of Parquet files, and as the column `file`, if it has a name, the
    file of each row; no rows when there are no files."""
    if not files:
        nulls = [f"NULL::{type_of(kind).duckdb} AS {identifier(name)}" for name, kind in columns.items()]
        return f"(SELECT {', '.join(nulls + [f'NULL::varchar AS {identifier(file)}'] * bool(file))} WHERE false)"
    named = [
        f"{identifier(name)}::{kind} AS {identifier(name)}" if type_of(kind).is_decimal else identifier(name)
        for name, kind in columns.items()
    ]
    if file and "filename" in map(str.lower, columns):  # with the option DuckDB takes the column for the file's name
        each = (f"*, {duckdb_literal(path)} AS {identifier(file)} FROM {relation([path], columns)}" for path in files)
        return f"(SELECT * FROM (SELECT {' UNION ALL SELECT '.join(each)}) WHERE {where})"
    with_file = f", filename = {duckdb_literal(file)}" if file else ""
    rows = f"read_parquet([{', '.join(map(duckdb_literal, files))}]{with_file})"
    return f"(SELECT {', '.join(named + [identifier(file)] * bool(file))} FROM {rows} WHERE {where})"


def exact(name: str, kind: str) -> str:
    """SQL of a column so that equal means the same: floats by bits, decimals as declared (some writers widen them)."""
    declared = type_of(kind)
    cast = "::bit" if declared.is_float else f"::{kind}" if declared.is_decimal else ""
    return identifier(name) + cast


def listed(names: Iterable[str]) -> str:
    return ", ".join(map(identifier, names))


def renamed(names: Iterable[str], others: Iterable[str]) -> str:
    return ", ".join(f"{identifier(name)} AS {identifier(other)}" for name, other in zip(names, others, strict=True))


def count(db: Engine, rows: str) -> int:
    return int((db.execute(f"SELECT count(*) FROM {rows}").fetchone() or (0,))[0])


def within(rows: str, keys: Sequence[str], others: str) -> str:
    """SQL of the rows whose key is in another relation."""
    return f"(SELECT * FROM {rows} SEMI JOIN {others} USING ({listed(keys)}))"


def without(rows: str, keys: Sequence[str], others: str) -> str:
    """SQL of the rows whose key is not in another relation."""
    return f"(SELECT * FROM {rows} ANTI JOIN {others} USING ({listed(keys)}))"


def save(db: Engine, rows: str, file: Path) -> None:
    """Writes a relation as a Parquet file."""
    dialect = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, USE_TMP_FILE false"
    kinds = {kind for _, kind, *_ in db.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()}
    if kinds & {"FLOAT", "DOUBLE"}:
        dialect += ", DICTIONARY_SIZE_LIMIT 0"  # in a dictionary DuckDB takes -0.0 and 0.0 for the same
    db.execute(f"COPY (SELECT * FROM {rows}) TO {duckdb_literal(str(file))} ({dialect})")
