"""Poison: one bad row of each kind among good ones, alone and together. Only it is set aside, with its reason."""

import pytest

from tests.support.lake import Lake
from tests.support.source import TABLES, execute

GOOD = (
    "INSERT INTO associado SELECT i, 'Ana', 'Lima', 30, 'a@b.c' FROM generate_series(1, 30) i",
    "INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i FROM generate_series(1, 30) i",
    "INSERT INTO cartao SELECT i, '4111111111111111', 'ANA', '2020-01-01', i, i FROM generate_series(1, 30) i",
    "INSERT INTO movimento SELECT i, 1.25, 'x', '2024-01-01', i % 20 + 1 FROM generate_series(1, 200) i",
)
# What is done to the source; the rows that are set aside by it: table, key, reasons.
Aside = list[tuple[str, int | None, list[str]]]
POISONS: dict[str, tuple[str, Aside]] = {
    "no key": (
        "INSERT INTO movimento VALUES (NULL, 1, 'x', '2024-01-01', 1)",
        [("movimento", None, ["key:missing"])],
    ),
    "a key twice, rows that differ": (
        "INSERT INTO movimento SELECT id, 9, 'y', data_movimento, id_cartao FROM movimento WHERE id = 3",
        [("movimento", 3, ["key:conflict"])] * 2,
    ),
    "no amount": ("UPDATE movimento SET vlr_transacao = NULL WHERE id = 4", [("movimento", 4, ["vlr_transacao:null"])]),
    "an amount that is no number": (
        "UPDATE movimento SET vlr_transacao = 'NaN' WHERE id = 5",
        [("movimento", 5, ["unreadable:vlr_transacao"])],
    ),
    "an amount with a third decimal": (
        "UPDATE movimento SET vlr_transacao = 1.005 WHERE id = 6",
        [("movimento", 6, ["unreadable:vlr_transacao"])],
    ),
    "an amount too large": (
        "UPDATE movimento SET vlr_transacao = 100000000 WHERE id = 7",
        [("movimento", 7, ["unreadable:vlr_transacao"])],
    ),
    "no date": ("UPDATE movimento SET data_movimento = NULL WHERE id = 8", [("movimento", 8, ["data_movimento:null"])]),
    "a date that never ends": (
        "UPDATE movimento SET data_movimento = 'infinity' WHERE id = 9",
        [("movimento", 9, ["unreadable:data_movimento"])],
    ),
    "no card": ("UPDATE movimento SET id_cartao = NULL WHERE id = 10", [("movimento", 10, ["id_cartao:null"])]),
    "a card that is not there": (
        "UPDATE movimento SET id_cartao = 999 WHERE id = 11",
        [("movimento", 11, ["cartao:missing"])],
    ),
    "a card without an account": (
        "INSERT INTO cartao VALUES (50, '1', 'x', NULL, 777, 30); INSERT INTO movimento VALUES (300, 1, 'x', '2024-01-01', 50)",
        [("cartao", 50, ["conta:missing"]), ("movimento", 300, ["cartao:quarantined"])],
    ),
    "an account without a member": (
        "INSERT INTO conta VALUES (60, 'x', NULL, 888); INSERT INTO cartao VALUES (60, '1', 'x', NULL, 60, 30)",
        [("conta", 60, ["associado:missing"]), ("cartao", 60, ["conta:quarantined"])],
    ),
    "a member twice, with a card": (
        "INSERT INTO associado SELECT id, 'Outra', sobrenome, idade, email FROM associado WHERE id = 25",
        [
            ("associado", 25, ["key:conflict"]),
            ("associado", 25, ["key:conflict"]),
            ("conta", 25, ["associado:quarantined"]),
            ("cartao", 25, ["conta:quarantined", "associado:quarantined"]),
        ],
    ),
}
TABLE_NAMES = ("associado", "conta", "cartao", "movimento")


def set_aside(lakehouse: Lake) -> list[tuple[str, int | None, list[str]]]:
    return sorted(
        (
            (name, row[f"id_{name}"], row["_reasons"])
            for name in TABLE_NAMES
            for row in lakehouse.table("silver", f"{name}__quarantine")
        ),
        key=repr,
    )


# Every test run judges each kind alone in test_checks.py, and all of them together in tests/scenes/run/test_run.py.
ALONE = [pytest.param([name], id=name) for name in POISONS]


@pytest.mark.long
@pytest.mark.parametrize("names", [*ALONE, pytest.param(list(POISONS), id="together")])
def test_only_the_bad_row_is_set_aside_with_its_reason(lakehouse: Lake, names: list[str]) -> None:
    execute(lakehouse.address, *TABLES, *GOOD)
    execute(lakehouse.address, *(POISONS[name][0] for name in names))
    lakehouse.run("bronze", "silver")
    expected = [reason for name in names for reason in POISONS[name][1]]
    assert set_aside(lakehouse) == sorted(expected, key=repr)
    bad = {(table, key) for table, key, _ in expected}
    for table, count in {"associado": 30, "conta": 30, "cartao": 30, "movimento": 200}.items():
        keys = [row[f"id_{table}"] for row in lakehouse.table("silver", table)]
        assert keys == [key for key in range(1, count + 1) if (table, key) not in bad]
