"""The checks: each bad row is set aside for its own reason, and none is lost or counted twice."""

from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import DataFrame

from conf.contract import Column, Pii, Reference, Table, quarantine, warn
from pipelines import quality
from tests.conftest import Rows

PARENT = Table(
    "silver.teste.dono",
    "One row per owner.",
    (Column("id_dono", "bigint", "id", key=True), Column("pais", "string", "country")),
)
TABLE = Table(
    "silver.teste.coisa",
    "One row per thing.",
    (
        Column("id_coisa", "bigint", "id", key=True, source="id"),
        Column("valor", "decimal(10,2)", "value"),
        Column("nota", "string", "note", nullable=True, rules=(warn("length(nota) < 5", "short note"),)),
        Column("cor", "string", "colour", nullable=True, labels=("azul", "d'oro")),
        Column("numero", "string", "card number", nullable=True, pii=Pii.CARD),
        Column("id_dono", "bigint", "owner", reference=Reference(PARENT, ("pais",))),
    ),
    rules=(quarantine("valor <> 13", "not 13"), warn("cor <> dono.pais", "colour is no country")),
)
SCHEMA = "id_coisa bigint, valor decimal(10,2), nota string, cor string, numero string, id_dono bigint, _rescued string"


@pytest.fixture
def judged(rows: Rows) -> Any:
    def judge(*values: tuple[Any, ...]) -> DataFrame:
        accepted = rows("id_dono bigint, pais string", (1, "br"), (2, "azul"))
        quarantined = rows("id_dono bigint, pais string", (3, "br"), (3, "pt"), (None, "br"))
        parents = {"id_dono": quality.parents(accepted, quarantined, "id_dono", ("pais",))}
        return quality.judge(quality.fold_copies(rows(SCHEMA, *values), TABLE.keys), TABLE, parents)

    return judge


GOOD = (1, 1, None, "azul", None, 1, None)


def row(**given: Any) -> tuple[Any, ...]:
    names = [part.split()[0] for part in SCHEMA.replace("decimal(10,2)", "decimal").split(", ")]
    values = {**dict(zip(names, GOOD, strict=True)), **given}
    if values["valor"] is not None:
        values["valor"] = Decimal(values["valor"])
    return tuple(values[name] for name in names)


@pytest.mark.parametrize(
    ("bad", "reasons"),
    [
        (row(id_coisa=None), ["key:missing"]),
        (row(id_coisa=None, _rescued='{"id": "1.5"}'), ["unreadable:id_coisa"]),
        (row(valor=None), ["valor:null"]),
        (row(valor=None, _rescued='{"valor": "NaN"}'), ["unreadable:valor"]),
        (row(id_dono=None), ["id_dono:null"]),
        (row(id_dono=9), ["dono:missing"]),
        (row(id_dono=3), ["dono:quarantined"]),
        (row(valor=13), ["not 13"]),
        (row(valor=13, id_dono=9), ["dono:missing", "not 13"]),
    ],
)
def test_a_bad_row_among_good_ones_is_set_aside_for_its_own_reason(
    judged: Any, bad: tuple[Any, ...], reasons: list[str]
) -> None:
    frame = judged(row(id_coisa=50), bad if bad[0] is None else (99, *bad[1:]), row(id_coisa=51))
    aside = quality.quarantined(frame, TABLE, 4).collect()
    assert [(found["_reasons"], found["_batch"]) for found in aside] == [(reasons, 4)]
    assert sorted(found["id_coisa"] for found in quality.accepted(frame, TABLE).collect()) == [50, 51]


@pytest.mark.parametrize(
    ("odd", "warnings"),
    [
        (row(nota="long note"), ["short note"]),
        (row(cor="preto"), ["cor is a known label"]),
        (row(cor="d'oro"), []),
        (row(cor=None), []),
        (row(id_dono=2), ["colour is no country"]),
        (row(cor=None, _rescued='{"cor": "?"}'), ["unreadable:cor"]),
    ],
)
def test_an_odd_row_is_accepted_with_a_warning(judged: Any, odd: tuple[Any, ...], warnings: list[str]) -> None:
    (found,) = judged(odd).select("_reasons", "_warnings").collect()
    assert (found["_reasons"], found["_warnings"]) == ([], warnings)


def test_identical_copies_count_once_and_conflicting_ones_are_all_set_aside(judged: Any) -> None:
    frame = judged(
        row(id_coisa=1), row(id_coisa=1), row(id_coisa=2), row(id_coisa=2), row(id_coisa=2, valor=5), row(id_coisa=3)
    )
    counts = frame.agg(*quality.counts(TABLE)).first().asDict()
    assert {name: counts[name] for name in ("rows_in", "rows_out", "set_aside", "copies")} == {
        "rows_in": 6,
        "rows_out": 2,
        "set_aside": 2,
        "copies": 2,
    }
    assert {found["_reasons"][0] for found in quality.quarantined(frame, TABLE, 1).collect()} == {"key:conflict"}
    assert sorted(found["id_coisa"] for found in quality.accepted(frame, TABLE).collect()) == [1, 3]


def test_rows_without_a_key_do_not_conflict_with_each_other(judged: Any) -> None:
    frame = judged(row(id_coisa=None), row(id_coisa=None, valor=2))
    assert [found["_reasons"] for found in quality.quarantined(frame, TABLE, 1).collect()] == [["key:missing"]] * 2


def test_cards_that_differ_only_in_masked_digits_conflict_and_quarantine_masks_them(judged: Any) -> None:
    frame = judged(row(numero="4111111111111111"), row(numero="5555111111111111"))
    aside = quality.quarantined(frame, TABLE, 1).collect()
    assert [(found["numero"], found["_reasons"]) for found in aside] == [("************1111", ["key:conflict"])] * 2


def test_a_parent_with_many_copies_in_quarantine_does_not_multiply_its_children(judged: Any) -> None:
    assert judged(row(id_dono=3)).count() == 1


def test_the_order_and_partitions_of_rows_change_nothing(judged: Any) -> None:
    values = [row(id_coisa=number % 7, valor=number % 3, id_dono=number % 5) for number in range(40)]
    results = [
        sorted((found["id_coisa"], found["valor"], found["_copies"], found["_reasons"]) for found in frame.collect())
        for frame in (judged(*values), judged(*reversed(values)).repartition(5))
    ]
    assert results[0] == results[1]
