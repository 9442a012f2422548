"""Deleted keys are found by counts of blocks: of one row that is gone, only the keys of its block are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from conf.contract import Column, Table
from conf.settings import Postgres
from pipelines.bronze import deletes
from pipelines.bronze.deletes import Source, deleted_keys
from pipelines.bronze.loads import read_plans
from pipelines.bronze.readers import Readers
from pipelines.core.console import Report
from pipelines.lake.engine import engine, listed, relation, without
from pipelines.lake.versions import TableVersion
from pipelines.sources.postgres.reader import ReadPlan
from pipelines.sources.postgres.snapshot import take_snapshot
from tests.support.lake import settings
from tests.support.source import execute, fresh_database, query

LEAST, MOST = -(2**63), 2**63 - 1

NUMBERS = Table("bronze.teste.numero", "One row per id.", (Column("id", "bigint", "Id", key=True),))
WORDS = Table("bronze.teste.palavra", "One row per id.", (Column("id", "string", "Id", key=True),))
PAIRS = Table(
    "bronze.teste.par",
    "One row per id and part.",
    (Column("id", "bigint", "Id", key=True), Column("parte", "string", "Part", key=True)),
)

SOURCE = (
    "CREATE TABLE numero (id int8 PRIMARY KEY, valor int DEFAULT 0)",
    f"INSERT INTO numero SELECT generate_series(-500, 499) UNION VALUES ({LEAST}), ({LEAST + 1}), ({MOST - 1}), ({MOST})",
    "CREATE TABLE inteiro (id int PRIMARY KEY) PARTITION BY RANGE (id)",
    "CREATE TABLE negativo PARTITION OF inteiro FOR VALUES FROM (MINVALUE) TO (0)",
    "CREATE TABLE positivo PARTITION OF inteiro FOR VALUES FROM (0) TO (MAXVALUE)",
    "INSERT INTO inteiro SELECT generate_series(-500, 499)",
    "CREATE TABLE palavra (id text PRIMARY KEY)",
    "INSERT INTO palavra SELECT 'CLI-' || i FROM generate_series(1000, 1999) i UNION VALUES ('çã'), ('Ç'), ('é😀1'), ('é😀2'), ('')",
    "CREATE TABLE unica (id uuid PRIMARY KEY)",
    "INSERT INTO unica SELECT md5(i::text)::uuid FROM generate_series(1, 1000) i",
    "CREATE TABLE par (parte text, id int8, PRIMARY KEY (parte, id))",
    "INSERT INTO par SELECT p, i FROM generate_series(1, 500) i, unnest(ARRAY['a', 'b']) p",
    "CREATE TABLE exato (id boolean PRIMARY KEY)",
    "INSERT INTO exato VALUES (true), (false)",
)

BOOLEANS = Table("bronze.teste.exato", "One row per id.", (Column("id", "boolean", "Id", key=True),))


class Night(NamedTuple):
    """What happens to a source, the condition of the rows that are written in it, and how many keys may be read."""

    name: str
    table: Table
    source: str
    sql: str
    most: int
    written: str = "false"


FEW = 130  # of a thousand

NIGHTS = (
    Night("one row", NUMBERS, "numero", "DELETE FROM numero WHERE id = 7", FEW),
    Night("the last", NUMBERS, "numero", f"DELETE FROM numero WHERE id = {MOST}", FEW),
    Night("the first", NUMBERS, "numero", f"DELETE FROM numero WHERE id = {LEAST}", FEW),
    Night("the extremes", NUMBERS, "numero", f"DELETE FROM numero WHERE id IN ({LEAST + 1}, {MOST - 1}, {MOST})", FEW),
    Night("around zero", NUMBERS, "numero", "DELETE FROM numero WHERE id IN (-1, 0)", 2 * FEW),
    Night("blocks apart", NUMBERS, "numero", "DELETE FROM numero WHERE id IN (-400, 100, 101, 400)", 3 * FEW),
    Night("a whole block", NUMBERS, "numero", "DELETE FROM numero WHERE id BETWEEN 128 AND 300", 2 * FEW),
    Night("everything", NUMBERS, "numero", "DELETE FROM numero", 0),
    Night(
        "another row comes into the block",
        NUMBERS, "numero",
        "DELETE FROM numero WHERE id IN (499, 498); INSERT INTO numero VALUES (500)",
        FEW,
        "id = 500",
    ),
    Night(
        "rows are written without a change of keys, and come back",
        NUMBERS, "numero",
        "DELETE FROM numero WHERE id < 20 AND id > 0; INSERT INTO numero VALUES (7), (9); UPDATE numero SET valor = 1 WHERE id > 480",
        FEW,
        "id IN (7, 9) OR id > 480",
    ),
    Night("an int, in partitions", NUMBERS, "inteiro", "DELETE FROM inteiro WHERE id = -500", FEW),
    Night("a row moves to another partition", NUMBERS, "inteiro", "UPDATE inteiro SET id = 600 WHERE id = -7", FEW, "id = 600"),
    Night("a text", WORDS, "palavra", "DELETE FROM palavra WHERE id = 'CLI-1234'", FEW),
    Night("texts of other alphabets", WORDS, "palavra", "DELETE FROM palavra WHERE id IN ('Ç', 'é😀1', '')", FEW),
    Night("a uuid", WORDS, "unica", "DELETE FROM unica WHERE id = md5('77')::uuid", FEW),
    Night("everything of texts", WORDS, "unica", "DELETE FROM unica", 0),
    Night("a part of a key", PAIRS, "par", "DELETE FROM par WHERE id = 77 AND parte = 'b'", FEW),
    Night(
        "a part for another", PAIRS, "par",
        "DELETE FROM par WHERE id IN (77, 78) AND parte = 'b'; INSERT INTO par VALUES ('c', 77)", FEW, "parte = 'c'",
    ),
    Night("a type that has no blocks", BOOLEANS, "exato", "DELETE FROM exato WHERE id", 1),
)  # fmt: skip


class Reading(NamedTuple):
    """A source as a run reads it, and the condition and number of the rows that were read of it."""

    readers: Readers
    plan: ReadPlan
    path: Path
    read: list[tuple[str, int]]

    def counted(self, plan: ReadPlan, condition: str) -> str:
        files = self.readers.rows(plan, condition, self.path)
        self.read.append((condition, sum(file.rows for file in files)))
        return relation([str(self.path / file.name) for file in files if file.rows], plan.types)

    def keys(self, condition: str = "") -> TableVersion:
        files = [str(self.path / file.name) for file in self.readers.rows(self.plan, condition, self.path) if file.rows]
        return TableVersion(tuple(files), self.plan.types, self.plan.table.keys)


@contextmanager
def reading(address: Postgres, table: Table, name: str, path: Path) -> Iterator[Reading]:
    table = Table(table.module, table.doc, table.columns, source=name)
    path.mkdir(parents=True)
    with (
        take_snapshot(address, "public", [name]) as snapshot,
        Report(quiet=True) as report,
        Readers(settings(path, ()), snapshot, 1, report, None) as readers,
    ):
        (plan,) = read_plans(snapshot, (table,))
        yield Reading(readers, plan, path, [])


@pytest.fixture(scope="module")
def template(server: Postgres) -> Iterator[Postgres]:
    with fresh_database(server) as address:
        execute(address, *SOURCE)
        yield address


@pytest.fixture
def address(server: Postgres, template: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    monkeypatch.setattr(deletes, "BLOCKS", 16)
    with fresh_database(server, template.database) as database:
        yield database


def keys_read(address: Postgres, night: Night, path: Path) -> tuple[str, int]:
    """Looks for the keys that are gone after a night: they are those that a comparison of all keys gives. The condition
    and the number of the keys that were read."""
    with reading(address, night.table, night.source, path / "old") as before:
        old = before.keys()
    execute(address, night.sql)
    with reading(address, night.table, night.source, path / "new") as after, engine("teste", path) as db:
        names = listed(old.keys)
        new = db.keep(f"SELECT {names} FROM {after.keys(night.written).sql}")
        source = Source(after.plan, after.readers.ask, after.counted)
        gone = db.execute(f"SELECT {names} FROM {deleted_keys(db, source, old, new)}").fetchall()
        truth = db.execute(f"SELECT {names} FROM {without(old.sql, old.keys, after.keys().sql)}").fetchall()
    assert sorted(gone) == sorted(truth) and gone
    (read,) = after.read
    return read


@pytest.mark.parametrize("night", NIGHTS, ids=lambda night: night.name)
def test_what_is_gone_is_found_and_few_keys_are_read(address: Postgres, night: Night, tmp_path: Path) -> None:
    _, rows = keys_read(address, night, tmp_path)
    assert rows <= night.most


@pytest.mark.parametrize("source", ["numero", "inteiro"])
def test_an_index_leads_to_the_keys_of_a_block(address: Postgres, tmp_path: Path, source: str) -> None:
    night = Night("one row", NUMBERS, source, f"DELETE FROM {source} WHERE id = 7", FEW)
    condition, _ = keys_read(address, night, tmp_path)
    execute(address, f"INSERT INTO {source} SELECT generate_series(1000, 50000)", "ANALYZE")
    plan = query(address, f"EXPLAIN SELECT id FROM {source} WHERE {condition}")
    assert any("Index Cond" in line for (line,) in plan) and not any("Seq Scan" in line for (line,) in plan)


def test_too_many_ranges_for_an_index_are_blocks_all_the_same(
    address: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletes, "MOST_RANGES", 1)
    night = Night("apart", NUMBERS, "numero", "DELETE FROM numero WHERE id IN (-400, 400)", 2 * FEW)
    condition, rows = keys_read(address, night, tmp_path)
    assert "BETWEEN" not in condition and rows <= night.most


def test_when_most_blocks_differ_all_keys_are_read_at_once(address: Postgres, tmp_path: Path) -> None:
    night = Night("half of each block", NUMBERS, "numero", "DELETE FROM numero WHERE id % 2 = 0", 502)
    assert keys_read(address, night, tmp_path) == ("", 502)


def test_more_blocks_than_a_sample_shows_are_not_asked_for(
    address: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletes, "MOST_BLOCKS", 5)
    assert keys_read(address, NIGHTS[0], tmp_path) == ("", 1003)


def test_texts_of_a_server_with_another_encoding_are_all_read(server: Postgres, tmp_path: Path) -> None:
    with fresh_database(server, "template0 ENCODING LATIN1 LOCALE 'C'") as address:
        execute(address, "CREATE TABLE palavra (id text PRIMARY KEY)", "INSERT INTO palavra VALUES ('ç'), ('ã'), ('b')")
        night = Night("a text", WORDS, "palavra", "DELETE FROM palavra WHERE id = 'ç'", 2)
        assert keys_read(address, night, tmp_path) == ("", 2)


@pytest.mark.parametrize("unseen", [500, 600])
def test_a_row_that_came_unseen_hides_no_deleted_row_of_a_block_that_is_read(
    address: Postgres, tmp_path: Path, unseen: int
) -> None:
    """So there are more keys than the counts of rows say, and the run knows that it has no proof."""
    sql = f"DELETE FROM numero WHERE id IN (497, 498, 499); INSERT INTO numero VALUES ({unseen})"
    keys_read(address, Night("unseen", NUMBERS, "numero", sql, FEW), tmp_path)
