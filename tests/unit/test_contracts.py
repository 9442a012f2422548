"""What every table of every layer must keep; a new table is tested by being there."""

import ast
import inspect
from pathlib import Path

import pytest

from conf.contract import Column, Csv, Files, Pii, Reference, Table, is_summed
from conf.settings import PROJECT
from pipelines.core import catalogue
from pipelines.core.names import LAYERS
from pipelines.lake.schema import arrow_type
from pipelines.seed import fake
from tools.check_transforms import places

ENTRIES = [entry for layer in LAYERS for entry in catalogue.entries(layer)]
TABLES = [entry.table for entry in ENTRIES]
BUILT = [entry for entry in ENTRIES if entry.transform]
every_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.module)
every_built_table = pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.table.module)


def test_every_module_of_a_domain_is_a_table_and_every_layer_has_some() -> None:
    files = [path for layer in LAYERS for path in (PROJECT / layer).glob("*/*.py") if path.name != "__init__.py"]
    assert sorted(table.module for table in TABLES) == sorted(f"{p.parts[-3]}.{p.parts[-2]}.{p.stem}" for p in files)
    assert {table.layer for table in TABLES} == set(LAYERS)


@every_table
def test_a_table_says_what_it_is_and_ends_with_its_grain(table: Table) -> None:
    assert table.comment.split(". ")[-1].startswith("One row per ")
    assert all(column.comment for column in table.columns)


@every_table
def test_names_are_unique_types_are_known_and_there_is_a_key(table: Table) -> None:
    names = [column.name.lower() for column in table.columns]
    assert len(names) == len(set(names))
    assert all(arrow_type(column.type) for column in table.columns)
    assert table.keys and not any(table[key].nullable for key in table.keys)
    assert sum(other.name == table.name and other.layer == table.layer for other in TABLES) == 1


@every_table
def test_a_reference_points_at_the_whole_key_of_a_table_of_its_layer(table: Table) -> None:
    for column, reference in table.references:
        assert reference.table.layer == table.layer
        assert [reference.table[key].type for key in reference.table.keys] == [
            table[name].type for name in column.foreign_key
        ]
        assert set(reference.columns) <= {other.name for other in reference.table.columns}
    parents = [reference.table.name for _, reference in table.references]
    assert len(parents) == len(set(parents)), "reasons name the parent, so a parent may be referenced once"


@every_table
def test_fake_values_are_made_by_makers_that_exist(table: Table) -> None:
    assert all(fake.maker_of(column.fake) for column in table.columns if column.fake)
    assert (table.fake_rows > 0) == (table.layer == "bronze")


@every_built_table
def test_a_column_that_is_made_from_another_names_it(entry: catalogue.Entry) -> None:
    if entry.table.layer == "silver":
        inputs = {column.name for source in entry.table.inputs for column in source.columns}
        assert {column.made_from for column in entry.table.columns} <= inputs


@every_built_table
def test_a_transform_takes_its_inputs_by_their_names(entry: catalogue.Entry) -> None:
    assert entry.transform is not None
    assert list(inspect.signature(entry.transform).parameters) == [source.name for source in entry.table.inputs]


@every_built_table
def test_personal_data_stays_marked_from_layer_to_layer(entry: catalogue.Entry) -> None:
    marked = {
        column.name: column.pii
        for source in entry.table.inputs
        for column in source.columns
        if column.pii is not Pii.NONE
    }
    for column in entry.table.columns:
        if column.made_from in marked:
            assert column.pii is marked[column.made_from]


@pytest.mark.parametrize("table", [table for table in TABLES if table.one_row_per], ids=lambda table: table.module)
def test_a_table_of_one_row_per_row_keeps_every_amount_of_its_origin(table: Table) -> None:
    assert table.one_row_per is not None
    kept = {column.made_from for column in table.summed}
    assert {column.name for column in table.one_row_per.summed} <= kept


@pytest.mark.parametrize(
    ("kind", "summed"),
    [
        ("decimal(10,2)", True),
        ("decimal(27,10)", True),
        ("decimal(28,2)", False),
        ("decimal(38,0)", False),
        ("bigint", False),
    ],
)
def test_sums_are_proved_of_decimals_that_leave_room_for_a_sum(kind: str, summed: bool) -> None:
    assert is_summed(kind) == summed


def test_the_purity_check_finds_what_a_transform_must_not_use(tmp_path: Path) -> None:
    module = tmp_path / "x.py"
    module.write_text("def transform(a):\n    a.write.save('x')\n    a.sparkSession.sql('')\n    return a.rdd.toDF()\n")
    assert [place.rsplit(".", 1)[1] for place in places(module)] == ["write", "sparkSession", "rdd"]
    module.write_text("def transform(a):\n    return a.agg(F.count('x'))\n")
    assert ast.parse(module.read_text()) and places(module) == []


def test_contracts_of_files_that_cannot_be_kept_are_refused() -> None:
    serial = Column("id", "bigint", "Id", key=True, serial=True)
    with pytest.raises(ValueError, match="would change when a file is replaced"):
        Table("bronze.x.y", "One row per y.", (serial,), files=Files("y.csv", Csv(), replaced=True))
    parent = Table("bronze.x.y", "One row per y.", (serial,))
    with pytest.raises(ValueError, match="cannot tell column y from the referenced table"):
        Table("bronze.x.z", "One row per z.", (serial, Column("y", "bigint", "y", reference=Reference(parent))))
