"""Rows of a version are replaced by others: only the files that hold them are written again, and all is proved."""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from conf.contract import Column, Table
from pipelines.core.errors import QualityFault
from pipelines.lake import changes, delta, layout
from pipelines.lake import engine as lake_engine
from pipelines.lake.changes import Selection, Splice, Target, splice, splice_differing
from pipelines.lake.checksums import Content, Difference, differences, measured
from pipelines.lake.engine import Engine, engine, save
from pipelines.lake.runs import Mode, TableRun
from pipelines.lake.versions import StagedTable, TableVersion

COLUMNS = (Column("id", "bigint", "Id", key=True), Column("valor", "decimal(10,2)", "Amount"))
TABLE = Table("silver.teste.coisa", "Things. One row per thing.", COLUMNS)
TYPES = {"id": "bigint", "valor": "decimal(10,2)"}


@pytest.fixture
def db() -> Iterator[Engine]:
    with engine("test") as db:
        yield db


def rows(**amounts: str | None) -> str:
    """SQL of rows: `k1="0.10"` is the key 1 and the amount 0.10."""
    listed = (f"({key[1:]}, {'NULL' if value is None else value})" for key, value in amounts.items())
    return f"(SELECT id::bigint AS id, valor::decimal(10,2) AS valor FROM (VALUES {', '.join(listed)}) v(id, valor))"


def version(db: Engine, folder: Path, *files: str) -> tuple[TableVersion, TableRun]:
    """A version that has a file for each relation."""
    target = Target(TABLE, folder, 1)
    names = [name for relation in files for name in changes.write(db, relation, target)]
    old = TableVersion(tuple(sorted(target.paths(names))), TYPES, ("id",))
    content = measured(db, old.sql, TYPES, ("id",))
    return old, TableRun("coisa", 0, content.rows, content.rows, columns=content.columns)


def stored(db: Engine, staged: StagedTable) -> dict[int, str]:
    return dict(db.execute(f"SELECT id, valor::varchar FROM {staged.content.sql} ORDER BY id").fetchall())


@pytest.mark.parametrize(
    "replaced", [Selection(("id",), "(SELECT 2 AS id)"), Selection(("valor",), "(SELECT 2 AS valor)")]
)
def test_only_files_with_a_row_that_is_replaced_are_written_again(
    db: Engine, tmp_path: Path, replaced: Selection
) -> None:
    old, record = version(db, tmp_path, rows(k1=None, k2="2"), rows(k3="3"))
    staged = splice(db, Splice(old, record, replaced, rows(k2="2.50", k4="4")), Target(TABLE, tmp_path, 2))
    assert stored(db, staged) == {1: None, 2: "2.50", 3: "3.00", 4: "4.00"}
    assert staged.kept is not None and len(staged.kept) == 1 and len(staged.files) == 2
    assert (staged.table_run.mode, staged.table_run.how) == (Mode.CHANGED, "1 written, 1 updated, 0 deleted")
    assert staged.table_run.content == measured(db, staged.content.sql, TYPES, ("id",))
    assert staged.table_run.totals == {"valor": Decimal("9.50")}


def test_many_small_files_become_one(db: Engine, tmp_path: Path) -> None:
    old, record = version(db, tmp_path, *(rows(**{f"k{key}": "1"}) for key in range(layout.MANY_SMALL_FILES)))
    staged = splice(
        db,
        Splice(old, record, Selection(("id",), "(SELECT 1 AS id WHERE false)"), rows(k100="1")),
        Target(TABLE, tmp_path, 2),
    )
    assert staged.kept == () and len(staged.files) == 1 and staged.table_run.rows_out == layout.MANY_SMALL_FILES + 1


def test_rows_that_are_there_already_are_not_written_again(db: Engine, tmp_path: Path) -> None:
    old, record = version(db, tmp_path, rows(k1="1"), rows(k2="2"))
    affected = Selection(("id",), "(SELECT unnest([1, 2]) AS id)")
    staged = splice_differing(db, Splice(old, record, affected, rows(k1="1", k2="2.50")), Target(TABLE, tmp_path, 2))
    assert stored(db, staged) == {1: "1.00", 2: "2.50"}
    assert staged.table_run.how == "0 written, 1 updated, 0 deleted" and len(staged.kept or ()) == 1


def test_a_row_that_is_lost_on_the_way_is_an_error_and_no_file_stays(
    db: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, record = version(db, tmp_path, rows(k1="1", k2="2"))
    before = sorted(tmp_path.rglob("*.parquet"))
    monkeypatch.setattr(
        "pipelines.lake.changes.save", lambda db, sql, file: save(db, f"(SELECT * FROM {sql} WHERE id <> 1)", file)
    )
    with pytest.raises(QualityFault, match=r"silver\.coisa: a row was lost or doubled on the way"):
        splice(
            db, Splice(old, record, Selection(("id",), "(SELECT 2 AS id)"), rows(k2="3")), Target(TABLE, tmp_path, 2)
        )
    delta.sweep(tmp_path, 2)  # as the run does that fails
    assert sorted(tmp_path.rglob("*.parquet")) == before


def test_content_is_corrected_by_what_went_and_what_came(db: Engine) -> None:
    def content(relation: str) -> Content:
        return measured(db, relation, TYPES, ("id",))

    old, gone, came = rows(k1="1", k2="2"), rows(k2="2"), rows(k2="2.50", k3=None)
    assert content(old).after(content(gone), content(came)) == content(rows(k1="1", k2="2.50", k3=None))


def test_differences_name_kinds_keys_and_columns(db: Engine) -> None:
    expected, actual = rows(k1="1", k2="2", k3="3", k4="4"), rows(k2="2", k3="3.50", k4="4.50", k5="5")
    assert [str(difference) for difference in differences(db, expected, actual, TYPES, ("id",))] == [
        "2 rows changed in valor, keys 3 to 4",
        "1 row too many, key 5",
        "1 row missing, key 1",
    ]
    assert str(Difference("missing", 1, "", "")) == "1 row missing"


@pytest.mark.parametrize("names", [("filename", "valor"), ("v0", "valor")])
def test_a_table_may_have_columns_of_any_name(db: Engine, tmp_path: Path, names: tuple[str, str]) -> None:
    key, value = names
    table = Table(
        "silver.teste.coisa", "Things.", (Column(key, "string", "Key", key=True), Column(value, "string", "V"))
    )
    types, target = {key: "string", value: "string"}, Target(table, tmp_path, 1)

    def rows(*pairs: tuple[str, str]) -> str:
        return f"(SELECT * FROM (VALUES {', '.join(map(str, pairs))}) v({key}, {value}))"

    files = [name for number in ("1", "2") for name in changes.write(db, rows((f"k{number}", "a")), target)]
    old = TableVersion(tuple(sorted(target.paths(files))), types, (key,))
    content = measured(db, old.sql, types, (key,))
    record = TableRun("coisa", 0, content.rows, content.rows, columns=content.columns)
    change = Splice(old, record, Selection((key,), rows(("k1", ""), ("k3", ""))), rows(("k1", "b"), ("k3", "c")))
    staged = splice_differing(db, change, Target(table, tmp_path, 2))
    stored = db.execute(f"SELECT {key}, {value} FROM {staged.content.sql} ORDER BY 1").fetchall()
    assert stored == [("k1", "b"), ("k2", "a"), ("k3", "c")]
    assert staged.table_run.how == "1 written, 1 updated, 0 deleted"


NIGHTS = 60


def test_many_nights_leave_few_files_in_the_order_of_keys_and_write_what_changed(
    db: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come at the end, now and then between others or before them, change and go, in a table of some hundred rows
    of which a file has some thirty."""
    monkeypatch.setattr(layout, "SMALL_FILE_BYTES", 1500)
    monkeypatch.setattr(layout, "LARGE_FILE_BYTES", 1500)
    chance, model = random.Random(1), dict.fromkeys(range(1000, 1200), "0.00")
    old, record = version(db, tmp_path, rows(**{f"k{key}": value for key, value in model.items()}))
    numbers, written = list[int](), list[int]()
    for night in range(2, NIGHTS + 2):
        target, before = Target(TABLE, tmp_path, night), dict(model)
        newest = range(max(model) + 1, max(model) + 6)
        others = chance.sample(range(chance.choice([0, 1000]), max(model)), 2)
        updated, gone = chance.sample(sorted(model), 3), chance.sample(sorted(model), 5)
        model |= dict.fromkeys((*newest, *others, *updated), f"{night}.00")
        model = {key: value for key, value in model.items() if key not in gone}
        affected = sorted({*newest, *others, *updated, *gone})
        came = rows(**{f"k{key}": model[key] for key in affected if key in model})
        staged = splice_differing(
            db, Splice(old, record, Selection(("id",), f"(SELECT unnest({affected}) AS id)"), came), target
        )
        assert stored(db, staged) == model
        assert staged.table_run.content == measured(db, staged.content.sql, TYPES, ("id",))
        feed = db.execute(f"SELECT id, valor::varchar, _change_type FROM '{tmp_path / staged.feed}'").fetchall()
        assert {(key, value) for key, value, kind in feed if kind in delta.GONE} == before.items() - model.items()
        assert {(key, value) for key, value, kind in feed if kind in delta.CAME} == model.items() - before.items()
        spans = [file.span for file in layout.data_files(TABLE, staged.content.files)]
        assert all(a and b and a[1] < b[0] for a, b in pairwise(spans)), "disjoint"
        numbers.append(len(spans))
        written.append(sum((tmp_path / name).stat().st_size for name in staged.files))
        old, record = replace(staged.content, number=None), staged.table_run
    assert max(numbers[30:]) <= max(numbers[10:30]) + 3, numbers
    assert sum(written[40:]) < 1.5 * sum(written[20:40]), written


@pytest.mark.parametrize("is_chain", [True, False])
def test_files_that_overlap_are_cut_apart_unless_all_do(
    db: Engine, tmp_path: Path, is_chain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table that came in the order of pages, each file has keys of the next; or each has keys of all ages."""
    monkeypatch.setattr(layout, "SMALL_FILE_BYTES", 0)
    lies = {key: key // 10 - (key % 10 == 3 and key > 10) if is_chain else key % 10 for key in range(100)}
    files = [rows(**{f"k{key}": "1" for key in lies if lies[key] == file}) for file in range(10)]
    old, record = version(db, tmp_path, *files)
    changed = dict.fromkeys((*range(0, 100, 7), *range(0, 100, 10), 150, 200), "2.00")
    affected = Selection(("id",), f"(SELECT unnest({[*changed, 3]}) AS id)")
    came = rows(**{f"k{key}": value for key, value in changed.items()})
    staged = splice_differing(db, Splice(old, record, affected, came), Target(TABLE, tmp_path, 2))
    assert stored(db, staged) == {key: "1.00" for key in lies if key != 3} | changed
    assert staged.table_run.content == measured(db, staged.content.sql, TYPES, ("id",))
    spans = [file.span for file in layout.data_files(TABLE, staged.content.files)]
    assert all(a and b and a[1] < b[0] for a, b in pairwise(spans)) == is_chain


def test_rows_too_wide_for_several_files_at_once_are_written_one_file_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.lake.engine.MEMORY", 170)
    lake_engine._IDLE.clear()
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    columns = (COLUMNS[0], Column("texto", "string", "Text"))
    table, types = replace(TABLE, columns=columns), {"id": "bigint", "texto": "string"}
    with engine("wide") as db:
        target = Target(table, tmp_path, 1)
        wide = "SELECT i::bigint AS id, repeat(md5(i::varchar), 40) AS texto FROM range({0}, {0} + 20000) r(i)"
        names = [
            name
            for least in (0, 20_000, 40_000, 60_000)
            for name in changes.write(db, f"({wide.format(least)})", target)
        ]
        old = TableVersion(tuple(sorted(target.paths(names))), types, ("id",))
        content = measured(db, old.sql, types, ("id",))
        record = TableRun("coisa", 0, content.rows, content.rows, columns=content.columns)
        came = "(SELECT i::bigint AS id, 'x' AS texto FROM range(0, 80000, 10000) r(i))"
        change = Splice(
            old, record, Selection(("id",), "(SELECT i::bigint AS id FROM range(0, 80000, 10000) r(i))"), came
        )
        staged = splice(db, change, Target(table, tmp_path, 2))
        assert staged.table_run.how == "0 written, 8 updated, 0 deleted"
    lake_engine._IDLE.clear()
    assert {path.name for path in tmp_path.glob("part-00002-*")} == {*staged.files} and len(staged.files) == 4
