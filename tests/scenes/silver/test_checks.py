"""The checks: each bad row is set aside for its own reason, and none is lost or counted twice."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import Row

from conf.contract import Column, Files, Pii, Reference, Table, fail, no_formula, quarantine, warn
from conf.settings import Settings
from pipelines.core.names import LINE
from pipelines.silver import checks, judging
from pipelines.silver.checks import Assumptions, CheckedRows, Parent
from pipelines.silver.judging import Counts, aggregates, counts_in
from tests.support.lake import Rows

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
PLAIN = replace(TABLE, rules=(), columns=(*TABLE.columns[:-1], replace(TABLE["id_dono"], reference=Reference(PARENT))))
SCHEMA = "id_coisa bigint, valor decimal(10,2), nota string, cor string, numero string, id_dono bigint, _rescued string"


@dataclass
class Judged:
    """Checked rows, and what the pipeline does with them."""

    checked: CheckedRows

    def accepted(self) -> list[Row]:
        return judging.accepted(Settings(), self.checked).collect()

    def aside(self, batch: int = 1) -> list[Row]:
        return checks.quarantined(self.checked, batch).collect()

    def counts(self) -> Counts:
        row = self.checked.rows.agg(*aggregates(self.checked)).first()
        assert row is not None
        return counts_in(self.checked, row.asDict())

    def failed(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """For each rule that rows fail: how many do, and their keys."""
        counts = self.counts()
        failed = [check for check in self.checked.checks if counts.failed(check.name)]
        keys = checks.examples(self.checked, failed)
        return {check.name: (counts.failed(check.name), keys.get(check.name, ())) for check in failed}


@pytest.fixture
def judged(rows: Rows) -> Any:
    def judge(*values: tuple[Any, ...], table: Table = TABLE) -> Judged:
        accepted = rows("id_dono bigint, pais string", (1, "br"), (2, "azul"))
        quarantined = rows("id_dono bigint, pais string", (3, "br"), (3, "pt"), (None, "br"))
        parents = {"id_dono": Parent(checks.parent_keys(accepted, quarantined, Reference(PARENT, ("pais",))))}
        return Judged(checks.apply_checks(rows(SCHEMA, *values), table, Assumptions(parents)))

    return judge


GOOD = (1, 1, None, "azul", None, 1, None)


def row(**given: Any) -> tuple[Any, ...]:
    names = [part.split()[0] for part in SCHEMA.replace("decimal(10,2)", "decimal").split(", ")]
    values = {**dict(zip(names, GOOD, strict=True)), **given}
    if values["valor"] is not None:
        values["valor"] = Decimal(values["valor"])
    return tuple(values[name] for name in names)


# Bad rows, and why they are set aside: those without a key do not conflict, a parent that lies in quarantine twice does
# not multiply its child, and a warning counts accepted rows only.
BAD = (
    (row(id_coisa=None), ["key:missing"]),
    (row(id_coisa=None, valor=2), ["key:missing"]),
    (row(id_coisa=None, _rescued='{"id": "1.5"}'), ["unreadable:id_coisa"]),
    (row(id_coisa=90, valor=None), ["valor:null"]),
    (row(id_coisa=91, valor=None, _rescued='{"valor": "NaN"}'), ["unreadable:valor"]),
    (row(id_coisa=92, id_dono=None), ["id_dono:null"]),
    (row(id_coisa=93, id_dono=9), ["dono:missing"]),
    (row(id_coisa=94, id_dono=3), ["dono:quarantined"]),
    (row(id_coisa=95, valor=13), ["not 13"]),
    (row(id_coisa=96, valor=13, id_dono=9), ["dono:missing", "not 13"]),
    (row(id_coisa=97, valor=13, nota="long note"), ["not 13"]),
)


def test_each_bad_row_among_good_ones_is_set_aside_for_its_own_reason(judged: Any) -> None:
    frame = judged(row(id_coisa=50), *(bad for bad, _ in BAD), row(id_coisa=51))
    aside = [(row["id_coisa"], row["_reasons"], row["_batch"]) for row in frame.aside(4)]
    assert sorted(aside, key=str) == sorted(((bad[0], reasons, 4) for bad, reasons in BAD), key=str)
    assert sorted(row["id_coisa"] for row in frame.accepted()) == [50, 51]
    failures = Counter(reason for _, reasons in BAD for reason in reasons)
    assert {name: number for name, (number, _) in frame.failed().items()} == failures


# Odd rows by their keys, and what they are warned of.
ODD = {
    1: (row(id_coisa=1, nota="long note"), ["short note"]),
    2: (row(id_coisa=2, cor="preto"), ["cor is a known label"]),
    3: (row(id_coisa=3, cor="d'oro"), []),
    4: (row(id_coisa=4, cor=None), []),
    5: (row(id_coisa=5, id_dono=2), ["colour is no country"]),
    6: (row(id_coisa=6, cor=None, _rescued='{"cor": "?"}'), ["unreadable:cor"]),
}


def test_each_odd_row_is_accepted_with_its_warning(judged: Any) -> None:
    frame = judged(*(odd for odd, _ in ODD.values()))
    assert sorted(row["id_coisa"] for row in frame.accepted()) == list(ODD)
    expected = {warning: (1, (str(key),)) for key, (_, warnings) in ODD.items() for warning in warnings}
    assert frame.failed() == expected


def test_identical_copies_count_once_and_conflicting_ones_are_all_set_aside(judged: Any) -> None:
    frame = judged(
        *(
            row(id_coisa=1),
            row(id_coisa=1),
            row(id_coisa=2),
            row(id_coisa=2),
            row(id_coisa=2, valor=5),
            row(id_coisa=3),
        ),
        row(id_coisa=4),
    )
    counts = frame.counts()
    assert (counts.rows_in, counts.rows_out, counts.set_aside, counts.copies) == (7, 3, 2, 2)
    sums = counts.sums_out, counts.sums_aside, counts.sums_copies
    assert sums == ({"valor": Decimal(3)}, {"valor": Decimal(6)}, {"valor": Decimal(2)})
    assert {row["_reasons"][0] for row in frame.aside()} == {"key:conflict"}
    assert sorted(row["id_coisa"] for row in frame.accepted()) == [1, 3, 4]


def test_cards_that_differ_only_in_masked_digits_conflict_and_quarantine_masks_them(judged: Any) -> None:
    frame = judged(row(numero="4111111111111111"), row(numero="5555111111111111"))
    assert [(row["numero"], row["_reasons"]) for row in frame.aside()] == [("************1111", ["key:conflict"])] * 2


def test_a_reference_of_two_columns_needs_both_and_is_asked_only_where_both_are_there(rows: Rows) -> None:
    keys = tuple(Column(name, "bigint", name, key=True) for name in ("id_oferta", "id_produto"))
    offer = Table("silver.teste.oferta", "One row per offer and product.", keys)
    points = Column("da", "bigint", "offer", nullable=True, reference=Reference(offer, with_columns=("produto",)))
    columns = (Column("id", "bigint", "id", key=True), Column("produto", "bigint", "product", nullable=True), points)
    table = Table("silver.teste.item", "One row per item.", columns)
    accepted = rows("id_oferta bigint, id_produto bigint", (1, 10), (1, 11), (2, 10))
    refused = rows("id_oferta bigint, id_produto bigint", (3, 10), (3, 10), (3, None))
    parents = {"da": Parent(checks.parent_keys(accepted, refused, points.reference or Reference(offer)))}
    frame = rows(
        "id bigint, produto bigint, da bigint, _rescued string",
        *((1, 10, 1, None), (2, 11, 2, None), (3, None, 1, None), (4, 10, None, None), (5, 10, 3, None)),
    )
    checked = Judged(checks.apply_checks(frame, table, Assumptions(parents, unique_keys=True)))
    assert sorted(row.id for row in checked.accepted()) == [1, 3, 4]
    assert {row.id: row._reasons for row in checked.aside()} == {2: ["oferta:missing"], 5: ["oferta:quarantined"]}


def test_a_line_that_is_no_row_is_set_aside_however_long_it_is(rows: Rows) -> None:
    bronze = Table(
        "bronze.teste.linha", "One row per line.", (Column("id", "bigint", "id", key=True),), files=Files("*.csv")
    )
    table = Table(
        "silver.teste.linha", "One row per line.", (Column("id", "bigint", "id", key=True),), inputs=(bronze,)
    )
    frame = rows("id bigint, _rescued string", (1, None), (2, json.dumps({LINE: "x" * 21_000_000, "_why": "y"})))
    checked = checks.apply_checks(frame, table, Assumptions({}, unique_keys=True))
    assert [row.id for row in Judged(checked).accepted()] == [1]
    aside = checks.quarantined(checked, 1).select("id", "_reasons").collect()
    assert [tuple(row) for row in aside] == [(2, ["line:unreadable"])]


@pytest.mark.jvm
def test_a_line_that_is_no_row_does_not_show_a_card_number(judged: Any) -> None:
    line = '{"_line": "7;4111 1111 1111-1234;4111111111111111;12345;2024-01-01", "_why": "x"}'
    (aside,) = judged((7, None, None, None, None, None, line)).aside()
    assert json.loads(aside._rescued)["_line"] == "7;**** **** ****-1234;************1111;*2345;****-01-01"


def test_the_order_and_partitions_of_rows_change_nothing(judged: Any) -> None:
    values = [row(id_coisa=number % 7, valor=number % 3, id_dono=number % 5) for number in range(40)]
    results = []
    for judgement, partitions in ((judged(*values), 1), (judged(*reversed(values)), 5)):
        rows = judgement.checked.rows.repartition(partitions).collect()
        results.append(sorted((row["id_coisa"], row["valor"], row["_copies"], row["_checks"]) for row in rows))
        results.append(judgement.failed())
    assert results[:2] == results[2:]


def test_the_three_least_keys_of_the_failed_rows_are_shown_unless_keys_are_personal(judged: Any) -> None:
    values = [row(id_coisa=number, id_dono=9) for number in (40, 7, 30, 12, 9)]
    assert judged(*values).failed() == {"dono:missing": (5, ("7", "9", "12"))}
    columns = tuple(replace(column, pii=Pii.INDIRECT) if column.key else column for column in TABLE.columns)
    assert judged(*values, table=replace(TABLE, columns=columns)).failed() == {"dono:missing": (5, ())}
    both = tuple(replace(column, key=column.name in ("id_coisa", "nota")) for column in TABLE.columns)
    (keys,) = [
        keys for _, keys in judged(row(nota="a", id_dono=9), table=replace(TABLE, columns=both)).failed().values()
    ]
    assert keys == ("1, a",)


def test_a_row_that_fails_a_rule_of_severity_fail_is_not_accepted_and_counted(judged: Any) -> None:
    strict = replace(TABLE, rules=(fail("valor < 100", "valor is small"),))
    frame = judged(row(valor=100), row(id_coisa=2), table=strict)
    assert frame.failed() == {"valor is small": (1, ("1",))} and len(frame.accepted()) == 1


def test_if_the_source_guarantees_a_reference_only_quarantined_parents_are_joined(rows: Rows) -> None:
    frame = rows(SCHEMA, row(), row(id_coisa=2, id_dono=3))
    few = checks.parent_keys(None, rows("id_dono bigint, pais string", (3, "br")), Reference(PARENT))
    for parent, aside in ((Parent(None, guaranteed=True), []), (Parent(few, guaranteed=True), [2])):
        judged = Judged(checks.apply_checks(frame, PLAIN, Assumptions({"id_dono": parent}, unique_keys=True)))
        expected = [(key, ["dono:quarantined"]) for key in aside]
        assert [(row["id_coisa"], row["_reasons"]) for row in judged.aside()] == expected
        assert len(judged.accepted()) == 2 - len(aside)


def test_a_check_that_no_row_can_fail_is_not_asked_and_counts_zero_failures(rows: Rows) -> None:
    known = Assumptions({"id_dono": Parent(None, guaranteed=True)}, unique_keys=True, nothing_rescued=True)
    judged = Judged(checks.apply_checks(rows(SCHEMA, row(), row(id_coisa=2, valor=None)), PLAIN, known))
    columns = {f"unreadable:{column.name}" for column in PLAIN.columns}
    not_asked = {check.name for check in judged.checked.checks if check.fails is None}
    assert not_asked == {"key:conflict", "dono:missing", "dono:quarantined", *columns}
    failures = judged.counts().failures
    assert failures.keys() == {check.name for check in judged.checked.checks}
    assert {name: number for name, number in failures.items() if number} == {"valor:null": 1}


def test_texts_that_a_spreadsheet_takes_for_formulas_are_warned_of_where_a_contract_asks(judged: Any) -> None:
    asking = replace(
        PLAIN, columns=(*PLAIN.columns[:2], replace(TABLE["nota"], rules=(no_formula("nota"),)), *PLAIN.columns[3:])
    )
    texts = ["=1", "+1", "-x", "@a", "\tx", "\rx", "a=1", " =1", "", "1-1", "'=1", None]
    result = judged(*(row(id_coisa=number, nota=text) for number, text in enumerate(texts, start=1)), table=asking)
    assert result.failed() == {"nota is no formula in a spreadsheet": (6, ("1", "2", "3"))}
    assert not result.aside()
