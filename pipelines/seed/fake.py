"""Makes fake rows from the bronze contracts: the same rows for the same seed, on any day and machine.

Faker supplies vocabularies once; the rows are drawn from them a batch at a time. A maker fills one column of a batch.
"""

import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from math import prod
from typing import Any
from uuid import UUID

from faker import Faker
from faker.utils.checksums import calculate_luhn

from conf.contract import Column, Fake, Table
from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.contracts import nearest
from pipelines.core.errors import UsageFault
from pipelines.core.types import type_of

BATCH_ROWS = 20_000

# Nothing in the fake data is younger, so that it never depends on today.
REFERENCE_DATE = datetime(2024, 12, 31, tzinfo=UTC)

# No row points at the last share of a parent's rows: members without accounts, cards without movements.
IDLE_PARENTS = 0.05

# Issuers' test ranges and the length of their numbers.
CARD_PREFIXES = ("422222", "305693", "378282", "411111", "555555", "675964", "400000")
CARD_LENGTHS = (13, 14, 15, 16, 16, 18, 19)

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - moments of the source have no zone


@dataclass
class Batch:
    """Rows in the making: their ids are `numbers`; `column` by column; `kept` has the columns of the parents that they
    are made from.

    Moments are seconds since 1970; `pointed` has for each reference the parent's row, counted from 0.
    """

    table: Table
    column: Column
    numbers: range
    dice: random.Random
    seed: int
    kept: dict[str, dict[str, list[Any]]]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    pointed: dict[str, list[int]] = field(default_factory=dict)

    def drawn(self, values: Sequence[Any]) -> list[Any]:
        """Any of the values for each row."""
        return self.dice.choices(values, k=len(self.numbers))

    def of_parents(self, reference: str, column: str = "") -> list[Any]:
        """A value of each row of the parent: its `column`, or its key."""
        target = self.table[reference].reference
        assert target is not None
        return self.kept[target.table.name][column or target.table.keys[0]]

    def parent(self, reference: str, column: str) -> list[Any]:
        """The value of the parent's `column` for each row."""
        values = self.of_parents(reference, column)
        return [values[row] for row in self.pointed[reference]]


@cache
def vocabulary(provider: str, seed: int) -> tuple[str, ...]:
    """Some hundred different values of a Faker provider, Brazilian where it has them."""
    faker = Faker("pt_BR")
    faker.seed_instance(seed)
    return tuple(sorted({str(getattr(faker, provider)()) for _ in range(600)}))


@cache
def plain(text: str) -> str:
    """Without accents, apostrophes and blanks."""
    return "".join(letter for letter in unicodedata.normalize("NFD", text) if letter.isalnum() and letter.isascii())


def words(batch: Batch, provider: str) -> list[str]:
    return batch.drawn(vocabulary(provider, batch.seed))


def surname(batch: Batch) -> list[str]:
    single = vocabulary("last_name", batch.seed)
    known = (*single, "d'Ávila", "Sant'Anna", "D'Oliveira", "McDonald", "Conceição")
    pairs = zip(batch.drawn(known), batch.drawn(known), batch.drawn(range(3)), strict=True)
    return [f"{first} {second}" if kind == 0 else first for first, second, kind in pairs]


def between(batch: Batch, low: int, high: int) -> list[int]:
    return batch.drawn(range(low, high + 1))


def email(batch: Batch, *names: str) -> list[str]:
    hosts = batch.drawn(("example.com", "example.org", "Example.NET"))
    people = zip(*(batch.columns[name] for name in names), strict=True)
    return [
        f"{'.'.join(plain(name.split(' ')[0]) for name in person)}{number}@{host}"
        for number, person, host in zip(batch.numbers, people, hosts, strict=True)
    ]


def choice(batch: Batch, *values: str | int) -> list[str | int]:
    return batch.drawn(values)


def guid(batch: Batch) -> list[str]:
    return [str(UUID(int=batch.dice.getrandbits(128), version=4)).upper() for _ in batch.numbers]


def in_turn(batch: Batch, reference: str) -> list[int]:
    """The parents one after the other, again and again."""
    ids = batch.of_parents(reference)
    return [ids[(number - 1) % len(ids)] for number in batch.numbers]


def turn(batch: Batch, reference: str) -> list[int]:
    """How often the parents have come one after the other by now, from 1."""
    parents = len(batch.of_parents(reference))
    return [1 + (number - 1) // parents for number in batch.numbers]


def same(batch: Batch, reference: str, parent_column: str) -> list[Any]:
    """What the parent has."""
    return batch.parent(reference, parent_column)


def times(batch: Batch, *columns: str) -> list[Decimal]:
    """The product of other columns."""
    rows = zip(*(batch.columns[name] for name in columns), strict=True)
    return [prod(map(Decimal, factors), start=Decimal(1)) for factors in rows]


def plus(batch: Batch, *columns: str) -> list[Decimal]:
    """The sum of other columns."""
    rows = zip(*(batch.columns[name] for name in columns), strict=True)
    return [sum(map(Decimal, parts), Decimal(0)) for parts in rows]


def label(batch: Batch) -> list[str]:
    return batch.drawn(batch.column.labels)


def moment(batch: Batch, earliest: str) -> list[int]:
    """Up to a quarter of a year before the reference date."""
    start = int(datetime.fromisoformat(earliest).replace(tzinfo=UTC).timestamp())
    end = int((REFERENCE_DATE - timedelta(days=90)).timestamp())
    return batch.drawn(range(start, end))


def after(batch: Batch, reference: str, parent_column: str) -> list[int]:
    """Between the parent's moment and the reference date."""
    end, roll = int(REFERENCE_DATE.timestamp()), batch.dice.random
    return [start + int(roll() * (end - start)) for start in batch.parent(reference, parent_column)]


def mostly_same(batch: Batch, reference: str, parent_column: str) -> list[int]:
    """What the parent points at; in 3 of 100 rows another row of that table."""
    others = batch.drawn(range(len(batch.of_parents(batch.column.name))))
    chances = batch.drawn(range(100))
    ids = [
        other + 1 if chance < 3 else same
        for same, other, chance in zip(batch.parent(reference, parent_column), others, chances, strict=True)
    ]
    batch.pointed[batch.column.name] = [number - 1 for number in ids]
    return ids


def card_number(batch: Batch) -> list[str]:
    return [_card_number(number) for number in batch.numbers]


def _card_number(number: int) -> str:
    rounds, kind = divmod(number, len(CARD_PREFIXES))
    prefix = CARD_PREFIXES[kind]
    digits = CARD_LENGTHS[kind] - len(prefix) - 1
    payload = prefix + str((rounds * 7919 + 104729) % 10**digits).zfill(digits)
    return f"{payload}{calculate_luhn(int(payload))}"


def printed_name(batch: Batch, reference: str, *names: str) -> list[str]:
    parts = zip(*(batch.parent(reference, name) for name in names), strict=True)
    return [" ".join(plain(word) for part in person for word in part.split(" ")).upper()[:26] for person in parts]


def amount(batch: Batch) -> list[str]:
    """Mostly small; 3 of 100 negative, 1 of 200 zero."""
    roll = batch.dice.random
    cents = (int(10 ** (2 + 3.8 * roll() ** 2)) for _ in batch.numbers)
    kinds = batch.drawn(range(200))
    return [
        f"{'-' if kind < 6 else ''}{cent // 100}.{cent % 100:02d}" if kind != 6 else "0.00"
        for cent, kind in zip(cents, kinds, strict=True)
    ]


@cache
def _descriptions(seed: int) -> tuple[str, ...]:
    shops, cities = vocabulary("company", seed), vocabulary("city", seed)
    forms = (
        "{shop}",
        "{shop}, {city}",
        "Compra em {shop}; parcela 1/3",
        'Pagamento "{shop}"',
        "{shop}\n{city}",
        "Café à vista - {shop}",
        "PIX d'{city}",
    )
    return tuple(
        form.format(shop=shop, city=cities[index % len(cities)]) for index, shop in enumerate(shops) for form in forms
    )


def description(batch: Batch) -> list[str]:
    return batch.drawn(_descriptions(batch.seed))


Maker = Callable[..., list[Any]]

# Makers whose arguments are a reference and columns of the parent that it points at.
OF_PARENT = (after, in_turn, mostly_same, printed_name, same, turn)
OTHERS = (amount, between, card_number, choice, description, email, guid, label, moment, plus, surname, times, words)
MAKERS: dict[str, Maker] = {maker.__name__: maker for maker in (*OF_PARENT, *OTHERS)}


def maker_of(fake: Fake) -> Maker:
    """The maker that a contract names. Raises UsageFault."""
    if fake.maker not in MAKERS:
        raise UsageFault(f"no fake values are made by {fake.maker}{nearest(fake.maker, MAKERS)}")
    return MAKERS[fake.maker]


SHOWN: dict[str, Callable[[Any], str]] = {
    "timestamp_ntz": lambda seconds: str(EPOCH + timedelta(seconds=seconds)),
    "timestamp": lambda seconds: f"{EPOCH + timedelta(seconds=seconds)}+00",
    "date": lambda seconds: str((EPOCH + timedelta(seconds=seconds)).date()),
    "binary": lambda value: rf"\x{str(value).encode().hex()}",
}


def sizes(tables: tuple[Table, ...], movements: int) -> dict[str, int]:
    """Rows of each table; at least one, since other tables point at it."""
    return {table.name: max(1, round(table.fake_rows * movements)) for table in tables}


def kept_columns(tables: tuple[Table, ...]) -> dict[str, dict[str, list[Any]]]:
    """The columns of each table that rows of other tables are made from, still empty."""
    kept: dict[str, dict[str, list[Any]]] = {table.name: {} for table in tables}
    for table in tables:
        for column, reference in table.references:
            kept[reference.table.name][reference.table.keys[0]] = []
            for other in table.columns:
                if other.fake and maker_of(other.fake) in OF_PARENT and other.fake.args[0] == column.name:
                    kept[reference.table.name] |= {str(name): [] for name in other.fake.args[1:]}
    return kept


Rows = Iterator[tuple[Table, list[tuple[Any, ...]]]]


def batches(tables: tuple[Table, ...], movements: int, seed: int) -> Rows:
    """All rows, parents before children, in the order of the contract's columns; moments as text, nulls as None.

    `tables` in an order in which parents come first. Memory holds one batch and what children need of their parents.
    """
    kept, rows = kept_columns(tables), sizes(tables, movements)
    for table in tables:
        dice = random.Random(f"{seed}/{table.name}")
        numbers = range(1, rows[table.name] + 1)
        for start in range(0, len(numbers), BATCH_ROWS):
            batch = Batch(table, table.columns[0], numbers[start : start + BATCH_ROWS], dice, seed, kept)
            _fill(batch)
            for name, values in kept[table.name].items():
                values.extend(batch.columns[name])
            yield table, list(zip(*(_finished(column, batch) for column in table.columns), strict=True))


def reported(settings: Settings, tables: tuple[Table, ...], report: Report) -> Rows:
    """The same, of the size and the seed in the settings. A batch counts as progress when the next is asked for."""
    for name, number in sizes(tables, settings.seed.movimentos).items():
        report.expect("source", name, number)
    for table, rows in batches(tables, settings.seed.movimentos, settings.seed.seed):
        yield table, rows
        report.progress("source", table.name, len(rows))
    for table in tables:
        report.finished("source", table.name)


def _fill(batch: Batch) -> None:
    """Key and references first: other columns are made from what they point at."""
    for column in sorted(batch.table.columns, key=lambda column: (not column.key, column.reference is None)):
        batch.column = column
        if column.fake:
            values = maker_of(column.fake)(batch, *column.fake.args)
        elif column.reference:
            values = _point(batch, column)
        elif column.key:
            step = 86400 if column.type == "date" else 1  # the day after 1970 began, in seconds
            values = [number * step for number in batch.numbers]
        elif column.nullable:
            values = [None] * len(batch.numbers)
        else:
            values = batch.drawn(type_of(column.type).samples)
        batch.columns[column.name] = values


def _point(batch: Batch, column: Column) -> list[int]:
    """A row of the parent for each row; the first are chosen more often, the last share never."""
    ids = batch.of_parents(column.name)
    active = max(1, int(len(ids) * (1 - IDLE_PARENTS)))
    roll = batch.dice.random
    batch.pointed[column.name] = [int(active * roll() ** 1.5) for _ in batch.numbers]
    return [ids[row] for row in batch.pointed[column.name]]


def _finished(column: Column, batch: Batch) -> list[Any]:
    """A column as the source's text has it, some of its values null."""
    values = batch.columns[column.name]
    if shown := SHOWN.get(column.type):
        values = [value if value is None or isinstance(value, str) else shown(value) for value in values]
    if column.fake and column.fake.nulls:
        roll, nulls = batch.dice.random, column.fake.nulls
        values = [None if roll() < nulls else value for value in values]
    return values
