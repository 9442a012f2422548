"""The fake source: the same rows anywhere, related as a cooperative's are."""

import hashlib
from collections import Counter
from typing import Any

import pytest

from conf.contract import Fake
from pipelines.core import catalogue
from pipelines.core.errors import UsageFault
from pipelines.seed import fake

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


def test_a_maker_that_does_not_exist_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(UsageFault, match="no fake values are made by amuont; did you mean amount"):
        fake.maker_of(Fake("amuont"))
