"""Nights of anything that happens to a source, run after run: always what a full load into a fresh lake would give.

A model in plain Python says what the source has; a fresh lake says what all layers should have.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.core import catalogue
from pipelines.core.names import HISTORY, LAYERS
from pipelines.lake import run_log
from pipelines.lake.changes import TECHNICAL
from pipelines.lake.engine import Engine, count, engine, listed
from pipelines.lake.runs import Run
from pipelines.lake.versions import TableVersion, table_version
from tests.support.lake import Lake
from tests.support.oracle import agree
from tests.support.readers import misread
from tests.support.source import connected, execute, fresh_database

IDS = st.integers(1, 9)
# What a row of each table may have, as SQL; the model keeps the texts.
VALUES: dict[str, dict[str, st.SearchStrategy[str]]] = {
    "associado": {
        "nome": st.sampled_from(["'Ana'", "' Eva  Maria'", "NULL", "''", "'José'"]),
        "idade": st.sampled_from(["30", "140", "NULL", "-1"]),
        "email": st.sampled_from(["'a@b'", "'X'", "NULL"]),
    },
    "conta": {
        "tipo": st.sampled_from(["'corrente'", "'outra'", "NULL"]),
        "id_associado": st.integers(1, 10).map(str) | st.just("NULL"),
    },
    "cartao": {
        "num_cartao": st.sampled_from(["'4111111111111111'", "'0000 1234'", "NULL"]),
        "id_conta": st.integers(1, 10).map(str),
        "id_associado": st.integers(1, 10).map(str),
    },
    "movimento": {
        "vlr_transacao": st.sampled_from(["1.25", "-3", "NULL", "'NaN'", "1.005", "10"]),
        "des_transacao": st.sampled_from(["'x'", "'a,b'", "NULL", "E'l\\n2'"]),
        "data_movimento": st.sampled_from(["'2024-01-01'", "'infinity'", "NULL", "'2024-05-05'"]),
        "id_cartao": st.integers(1, 10).map(str),
    },
}
SOURCE = (
    "CREATE TABLE associado (id int PRIMARY KEY, nome text, sobrenome text, idade int, email text)",
    "CREATE TABLE conta (id int PRIMARY KEY, tipo text, data_criacao timestamp, id_associado int)",
    "CREATE TABLE cartao (id int PRIMARY KEY, num_cartao text, nom_impresso text, data_criacao timestamp, id_conta int, id_associado int)",
    """CREATE TABLE movimento (id int PRIMARY KEY, vlr_transacao numeric, des_transacao text, data_movimento timestamp,
    id_cartao int) PARTITION BY RANGE (id)""",
    "CREATE TABLE baixo PARTITION OF movimento FOR VALUES FROM (MINVALUE) TO (50)",
    "CREATE TABLE alto (LIKE baixo INCLUDING ALL)",
    "INSERT INTO associado SELECT i, 'Ana', 'Lima', 30, 'a@b' FROM generate_series(1, 8) i",
    "INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i FROM generate_series(1, 8) i",
    "INSERT INTO cartao SELECT i, '4111111111111111', 'ANA', '2020-01-01', i, i FROM generate_series(1, 8) i",
    "INSERT INTO movimento SELECT i, 1.25, 'x', '2024-01-01', i % 8 + 1 FROM generate_series(1, 40) i",
    "INSERT INTO alto SELECT i, 1.25, 'x', '2024-01-01', 1 FROM generate_series(50, 55) i",
)
TABLE = st.sampled_from(list(VALUES))
Row = dict[str, str]


@st.composite
def change(draw: st.DrawFn) -> tuple[str, str, int, Any]:
    """(what, table, id, values or new id): what a statement does to one row."""
    name = draw(TABLE)
    what = draw(st.sampled_from(["write", "write", "write", "delete", "rekey"]))
    given_values = draw(st.fixed_dictionaries(VALUES[name])) if what == "write" else draw(IDS)
    return what, name, draw(IDS), given_values


CHANGES = st.lists(change(), max_size=3)
HAPPENING = st.one_of(
    st.tuples(st.just("commit"), CHANGES),
    st.tuples(st.just("commit"), CHANGES),
    st.tuples(st.just("roll back"), CHANGES),
    st.tuples(st.just("savepoint"), CHANGES, CHANGES),
    st.tuples(st.just("open"), CHANGES),
    st.tuples(st.just("close"), st.booleans()),
    st.tuples(st.just("truncate"), TABLE),
    st.tuples(st.just("vacuum"), TABLE, st.sampled_from(["FREEZE", "FULL", ""])),
    st.tuples(st.just("add column"), TABLE),
    st.tuples(st.just("attach")),
    st.tuples(st.just("swap"), st.sampled_from(["associado", "conta", "cartao"])),
    st.tuples(st.just("run"), st.sampled_from(["bronze", "silver", "bronze silver", "FULL"])),
    st.tuples(st.just("crash"), st.sampled_from(LAYERS)),
)
NIGHT = st.lists(HAPPENING, min_size=1, max_size=5)


@dataclass
class World:
    """A source, a lake that follows it, and what we know of both."""

    lakehouse: Lake
    model: dict[str, dict[int, Row]]
    versions: dict[tuple[str, int], list[Row]] = field(default_factory=dict)
    waiting: list[tuple[str, str, int, Any]] = field(default_factory=list)
    attached: bool = False
    columns: int = 0

    def apply(self, changes: list[tuple[str, str, int, Any]]) -> None:
        """What committed changes make of the model."""
        for what, name, key, given_values in changes:
            rows = self.model[name]
            if what == "write":
                rows[key] = dict(given_values)
            elif what == "delete":
                rows.pop(key, None)
            elif key in rows and given_values not in rows:
                rows[given_values] = rows.pop(key)


def sql(row_change: tuple[str, str, int, Any]) -> str:
    what, name, key, given_values = row_change
    if what == "delete":
        return f"DELETE FROM {name} WHERE id = {key}"
    if what == "rekey":
        free = f"NOT EXISTS (SELECT FROM {name} WHERE id = {given_values})"
        return f"UPDATE {name} SET id = {given_values} WHERE id = {key} AND {free}"
    sets = ", ".join(f"{column} = excluded.{column}" for column in given_values)
    return (
        f"INSERT INTO {name} (id, {', '.join(given_values)}) VALUES ({key}, {', '.join(given_values.values())}) "
        f"ON CONFLICT (id) DO UPDATE SET {sets}"
    )


def happen(world: World, late: psycopg2.extensions.connection, happening: tuple[Any, ...]) -> None:
    """One happening, in source and model; one that would wait for the open transaction does not come about."""
    what, *more = happening
    address, model = world.lakehouse.address, world.model
    with connected(address) as connection, connection.cursor() as cursor, suppress(psycopg2.errors.LockNotAvailable):
        cursor.execute("SET lock_timeout = '20ms'")
        if what in ("commit", "roll back", "savepoint"):
            cursor.execute("BEGIN")
            for change in more[0]:
                cursor.execute(sql(change))
            if what == "savepoint":
                cursor.execute("SAVEPOINT s")
                for change in more[1]:
                    cursor.execute(sql(change))
                cursor.execute("ROLLBACK TO s")
            cursor.execute("ROLLBACK" if what == "roll back" else "COMMIT")
            if what != "roll back":
                world.apply(more[0])
        elif what == "open":
            with late.cursor() as waiting, suppress(psycopg2.errors.LockNotAvailable):
                for change in more[0]:
                    waiting.execute("SAVEPOINT one")
                    waiting.execute("SET LOCAL lock_timeout = '20ms'")
                    waiting.execute(sql(change))
                    world.waiting.append(change)
        elif what == "close":
            late.commit() if more[0] else late.rollback()
            if more[0]:
                world.apply(world.waiting)
            world.waiting.clear()
        elif what == "truncate":
            cursor.execute(f"TRUNCATE {more[0]}")
            model[more[0]].clear()
        elif what == "vacuum":
            cursor.execute(f"VACUUM {more[1]} {more[0]}")
        elif what == "add column":
            cursor.execute(f"ALTER TABLE {more[0]} ADD extra_{world.columns} int DEFAULT 1")
            world.columns += 1
        elif what == "attach":
            words = (
                "DETACH PARTITION alto"
                if world.attached
                else "ATTACH PARTITION alto FOR VALUES FROM (50) TO (MAXVALUE)"
            )
            cursor.execute(f"ALTER TABLE movimento {words}")
            world.attached = not world.attached
            for key in range(50, 56):
                row = {
                    "vlr_transacao": "1.25",
                    "des_transacao": "'x'",
                    "data_movimento": "'2024-01-01'",
                    "id_cartao": "1",
                }
                model["movimento"].update({key: row}) if world.attached else model["movimento"].pop(key, None)
        elif what == "swap":
            name = more[0]
            cursor.execute(
                f"BEGIN; CREATE TABLE nova (LIKE {name} INCLUDING ALL); INSERT INTO nova SELECT * FROM {name} WHERE id > 2;"
                f"ALTER TABLE {name} RENAME TO velha; ALTER TABLE nova RENAME TO {name}; DROP TABLE velha; COMMIT"
            )
            model[name] = {key: row for key, row in model[name].items() if key > 2}
        elif what == "run":
            full = " ".join(VALUES) if more[0] == "FULL" else ""
            world.lakehouse.run(*(LAYERS if full else more[0].split()), full=full)
            _note(world)
        elif what == "crash":
            with broken_at_the_end(), suppress(RuntimeError):
                world.lakehouse.run(*LAYERS[: LAYERS.index(more[0]) + 1])


@contextmanager
def broken_at_the_end() -> Iterator[None]:
    """All is written and committed, and the run is not recorded, nor is anything brought back."""
    true = run_log.record, run_log.roll_back

    def crash(*_: object) -> None:
        run_log.roll_back = lambda *_: None
        raise RuntimeError

    try:
        run_log.record = crash  # type: ignore[assignment]
        yield
    finally:
        run_log.record, run_log.roll_back = true


def _note(world: World) -> None:
    """Members as silver has them after a run: the versions that its history should have."""
    if run_log.last_run(world.lakehouse.settings().silver_path, "cartoes") is None:
        return
    for name, keys in (("associado", "id_associado"), ("conta", "id_conta")):
        now = {row.pop(keys): row for row in world.lakehouse.table("silver", name)}
        for key in {key for table, key in world.versions if table == name} | now.keys():
            seen = world.versions.setdefault((name, key), [])
            present = now.get(key)
            if not seen or seen[-1] != present:
                seen.append(present)  # type: ignore[arg-type]


def check(world: World) -> None:
    """The lake has what the model has, what a fresh lake has, and the versions that were seen; any reader finds it."""
    mine, fresh = world.lakehouse, replace(world.lakehouse, folder=Path(tempfile.mkdtemp(dir=world.lakehouse.folder)))
    fresh.run()
    assert mine.csv == fresh.csv
    agree(mine)
    assert misread(mine, mine.spark) == []
    with engine("nights") as db:
        for layer in LAYERS:
            _same_layer(db, mine, fresh, layer)
        run = last(mine, "bronze")
        for name, rows in world.model.items():
            kept = table_version(mine.settings().bronze_path, run, _contract("bronze", name))
            keys = {key for (key,) in db.execute(f"SELECT id FROM {kept.sql}").fetchall()}
            assert keys == set(rows), name
        for name in ("associado", "conta"):
            _same_history(db, world, name)


def _contract(layer: str, name: str) -> Any:
    table = catalogue.table_of(layer, "cartoes", name)
    assert table is not None
    return table


def last(lakehouse: Lake, layer: str) -> Run:
    run = run_log.last_run(lakehouse.settings().layer_path(layer), "cartoes")
    assert run is not None
    return run


def _same_layer(db: Engine, mine: Lake, fresh: Lake, layer: str) -> None:
    runs, path = (last(mine, layer), last(fresh, layer)), mine.settings().layer_path(layer)
    assert {table.name for table in runs[0].tables} == {table.name for table in runs[1].tables}
    for table_run in (table for table in runs[1].tables if not table.name.endswith(HISTORY)):
        contract = _contract(layer, table_run.name)
        own_rows, other = (
            table_version(lakehouse.settings().layer_path(layer), run, contract, table_run.name)
            for lakehouse, run in zip((mine, fresh), runs, strict=True)
        )
        names = listed(name for name in other.types if name not in TECHNICAL)
        for a, b in ((own_rows, other), (other, own_rows)):
            assert count(db, f"(SELECT {names} FROM {a.sql} EXCEPT ALL SELECT {names} FROM {b.sql})") == 0, (
                table_run.name
            )
        numbers = [
            (
                own.rows_in,
                own.rows_out,
                own.set_aside,
                own.copies,
                own.totals,
                [c for c in own.columns if c.name != "_batch"],
            )
            for own in (run.table(table_run.name) for run in runs)
        ]
        assert numbers[0] == numbers[1], table_run.name
    rules = [
        {(rule.table, rule.rule): (rule.tested, rule.failed) for rule in run_log.read_rules(folder, run)}
        for folder, run in zip((path, fresh.settings().layer_path(layer)), runs, strict=True)
    ]
    assert rules[0] == rules[1]


def _same_history(db: Engine, world: World, name: str) -> None:
    """The versions of each key, one after the other without a gap; the current ones are the table's rows."""
    path, run, table = (
        world.lakehouse.settings().silver_path,
        last(world.lakehouse, "silver"),
        _contract("silver", name),
    )
    history, now = table_version(path, run, table, name + HISTORY), table_version(path, run, table)
    names = listed(now.types)
    current = TableVersion(history.files, history.types, history.keys)
    for a, b in ((f"{current.sql} WHERE _current", now.sql), (now.sql, f"{current.sql} WHERE _current")):
        assert count(db, f"(SELECT {names} FROM {a} EXCEPT ALL SELECT {names} FROM {b})") == 0, name
    assert count(db, f"{history.sql} WHERE _current <> (_valid_to IS NULL) OR _valid_from >= _valid_to") == 0
    key = table.keys[0]
    columns = [column for column in now.types if column != key]
    histories: dict[int, list[Any]] = {}
    ends: dict[int, Any] = {}
    ordered = (
        f"SELECT epoch_us(_valid_from), epoch_us(_valid_to), {listed([key, *columns])} FROM {history.sql} ORDER BY 1"
    )
    for since, until, row_key, *values in db.execute(ordered).fetchall():
        if row_key in ends and ends[row_key] != since:
            assert ends[row_key] < since
            histories[row_key].append(None)
        histories.setdefault(row_key, []).append(dict(zip(columns, values, strict=True)))
        ends[row_key] = until
    for row_key, until in ends.items():
        if until is not None:
            histories[row_key].append(None)
    seen = {key: versions for (table_name, key), versions in world.versions.items() if table_name == name}
    assert histories == {key: versions for key, versions in seen.items() if versions != [None]}


def live(lakehouse: Lake, nights: list[list[tuple[Any, ...]]]) -> None:
    execute(lakehouse.address, *SOURCE)
    model: dict[str, dict[int, Row]] = {name: {key: {} for key in range(1, 9)} for name in VALUES}
    model["movimento"] = {key: {} for key in range(1, 41)}
    world = World(lakehouse, model)
    lakehouse.run()
    _note(world)
    with connected(lakehouse.address) as late:
        late.autocommit = False
        for night in nights:
            for happening in night:
                happen(world, late, happening)
            lakehouse.run()
            _note(world)
            check(world)
            lakehouse.run()
            assert {table.how for layer in LAYERS for table in last(lakehouse, layer).tables} == {"unchanged"}


# A night takes seconds: what fails is shown as it was found.
@pytest.mark.long
@settings(deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
@given(nights=st.lists(NIGHT, min_size=2, max_size=3))
def test_after_any_nights_all_layers_are_those_of_a_full_load(
    server: Postgres, spark: SparkSession, nights: list[list[tuple[Any, ...]]]
) -> None:
    with fresh_database(server) as address, tempfile.TemporaryDirectory() as folder:
        live(Lake(Path(folder), address, spark), nights)


LONG = pytest.mark.long


@pytest.mark.parametrize("order", [(0,), pytest.param((0, 1), marks=LONG), pytest.param((1, 0), marks=LONG)], ids=str)
def test_after_a_crash_of_each_layer_between_changes_of_all_tables(lakehouse: Lake, order: tuple[int, ...]) -> None:
    """The events that need each other, by hand: what was left by a crash, a late commit, rows that come back."""
    member = {"nome": "'Novo'", "idade": "140", "email": "'X'"}
    nights: list[list[tuple[Any, ...]]] = [
        [
            ("open", [("write", "associado", 9, member)]),
            ("commit", [("delete", "associado", 1, 0), ("write", "associado", 2, member), ("rekey", "conta", 3, 9)]),
            ("crash", "bronze"),
            ("crash", "gold"),
            ("close", True),
            ("run", "bronze"),
        ],
        [
            ("commit", [("write", "associado", 1, member)]),
            ("run", "bronze silver"),
            ("swap", "conta"),
            ("crash", "silver"),
            ("truncate", "cartao"),
            ("attach",),
        ],
    ]
    live(lakehouse, [nights[number] for number in order])
