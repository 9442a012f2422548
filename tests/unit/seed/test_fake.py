"""The fake source: the same rows anywhere, related as a cooperative's are."""

import hashlib
from collections import Counter
from typing import Any

import pytest

from conf.settings import Postgres
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import SourceFault
from pipelines.seed import fake
from pipelines.seed.postgres import seed
from tests.conftest import Lake, execute, query

TABLES = catalogue.tables_of("bronze", "cartoes")
MOVEMENTS = 3000


def made(movements: int = MOVEMENTS, number: int = 42) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in TABLES}
    for table, batch in fake.batches(TABLES, movements, number):
        names = [column.name for column in table.columns]
        rows[table.name] += [dict(zip(names, values, strict=True)) for values in batch]
    return rows


@pytest.fixture(scope="module")
def source() -> dict[str, list[dict[str, Any]]]:
    return made()


def test_the_same_seed_gives_the_same_rows_on_any_day_and_machine(source: dict[str, list[dict[str, Any]]]) -> None:
    assert made() == source
    assert made(number=43) != source
    text = repr([sorted(rows[0].items()) for rows in source.values()]) + repr(source["movimento"][-1])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "877a48d7811f37cd"


def test_every_reference_points_at_a_row(source: dict[str, list[dict[str, Any]]]) -> None:
    for table in TABLES:
        for column, reference in table.references:
            ids = {row["id"] for row in source[reference.table.name]}
            assert {row[column.name] for row in source[table.name]} <= ids


def test_members_have_any_number_of_accounts_and_cards_and_cards_of_movements(
    source: dict[str, list[dict[str, Any]]],
) -> None:
    for parent, child, reference in (
        ("associado", "conta", "id_associado"),
        ("associado", "cartao", "id_associado"),
        ("cartao", "movimento", "id_cartao"),
    ):
        counts = Counter(row[reference] for row in source[child])
        numbers = {counts[row["id"]] for row in source[parent]}
        assert 0 in numbers and max(numbers) > 2 and len(numbers) > 3
    owner = {row["id"]: row["id_associado"] for row in source["conta"]}
    foreign = sum(owner[row["id_conta"]] != row["id_associado"] for row in source["cartao"])
    assert 0 < foreign < len(source["cartao"]) / 10


def test_no_movement_before_its_card_and_no_card_before_its_account(source: dict[str, list[dict[str, Any]]]) -> None:
    born = {name: {row["id"]: row["data_criacao"] for row in source[name]} for name in ("conta", "cartao")}
    assert all(row["data_criacao"] >= born["conta"][row["id_conta"]] for row in source["cartao"])
    assert all(row["data_movimento"] >= born["cartao"][row["id_cartao"]] for row in source["movimento"])


def test_card_numbers_are_unique_pass_luhn_and_have_13_to_19_digits(source: dict[str, list[dict[str, Any]]]) -> None:
    numbers = [row["num_cartao"] for row in source["cartao"]]
    assert len(set(numbers)) == len(numbers)
    assert {13, 16, 19} <= {len(number) for number in numbers} <= set(range(13, 20))
    for number in numbers:
        digits = [int(digit) for digit in reversed(number)]
        assert (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def test_the_texts_have_what_breaks_naive_csv_and_names(source: dict[str, list[dict[str, Any]]]) -> None:
    descriptions = "".join(row["des_transacao"] or "" for row in source["movimento"])
    surnames = "".join(row["sobrenome"] for row in source["associado"])
    assert all(mark in descriptions for mark in ',";\n')
    assert "'" in surnames and "ç" in surnames + descriptions
    amounts = [row["vlr_transacao"] for row in source["movimento"]]
    assert "0.00" in amounts and any(amount.startswith("-") for amount in amounts)


def test_the_seed_creates_what_the_contracts_say_and_again_changes_nothing(lakehouse: Lake) -> None:
    settings, address = lakehouse.settings(SEED__MOVIMENTOS="500"), lakehouse.address
    with Report() as report:
        seed(settings, address, TABLES, False, report)
        before = query(address, "SELECT xmin::text, * FROM movimento ORDER BY id")
        seed(settings, address, TABLES, False, report)
    assert len(before) == 500 and query(address, "SELECT xmin::text, * FROM movimento ORDER BY id") == before
    keys = "SELECT contype::text, count(*) FROM pg_constraint WHERE conrelid::regclass::text = ANY(%s) GROUP BY 1"
    counts = dict(query(address, keys.replace("%s", "ARRAY['associado','conta','cartao','movimento']")))
    assert (counts["p"], counts["f"]) == (4, 4)
    labels = query(address, "SELECT enumlabel::text FROM pg_enum ORDER BY enumsortorder")
    assert [label for (label,) in labels] == list(TABLES[1]["tipo"].labels)
    assert query(address, "SELECT col_description('cartao'::regclass, 2)") == [("Card number, 13 to 19 digits",)]


def test_another_size_replaces_fake_tables_in_the_embedded_server_only(lakehouse: Lake) -> None:
    with Report() as report:
        seed(lakehouse.settings(SEED__MOVIMENTOS="100"), lakehouse.address, TABLES, False, report)
        other = lakehouse.settings(SEED__MOVIMENTOS="200")
        with pytest.raises(SourceFault, match="fake tables of another size"):
            seed(other, lakehouse.address, TABLES, False, report)
        assert query(lakehouse.address, "SELECT count(*) FROM movimento") == [(100,)]
        seed(other, lakehouse.address, TABLES, True, report)
    assert query(lakehouse.address, "SELECT count(*) FROM movimento") == [(200,)]


@pytest.mark.parametrize("embedded", [True, False])
def test_the_seed_never_touches_tables_that_it_did_not_create(lakehouse: Lake, embedded: bool) -> None:
    address: Postgres = lakehouse.address
    execute(address, "CREATE TABLE conta (id int)", "INSERT INTO conta VALUES (7)")
    with Report() as report, pytest.raises(SourceFault, match="conta was not made by `make seed`"):
        seed(lakehouse.settings(), address, TABLES, embedded, report)
    assert query(address, "SELECT * FROM conta") == [(7,)]
    assert query(address, "SELECT count(*) FROM pg_class WHERE relname = 'movimento'") == [(0,)]
