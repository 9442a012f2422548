"""Silver's transforms on tiny frames; each test states only the columns that matter."""

from datetime import datetime
from decimal import Decimal

import pytest

from silver.cartoes import associado, cartao, conta, movimento
from tests.support.lake import Rows

pytestmark = pytest.mark.jvm


def test_a_member_gets_tidy_names_and_a_lower_case_email(rows: Rows) -> None:
    bronze = rows(
        "id bigint, nome string, sobrenome string, idade int, email string, _rescued string",
        (1, "  José  Carlos ", "d'Ávila", 40, " Jose@Example.COM ", None),
        (2, " ", None, None, "", '{"idade": "x"}'),
    )
    assert associado.transform(bronze).collect() == [
        (1, "José Carlos", "d'Ávila", 40, "jose@example.com", None),
        (2, None, None, None, None, '{"idade": "x"}'),
    ]


def test_an_account_keeps_its_moment_to_the_microsecond(rows: Rows) -> None:
    moment = datetime(2018, 11, 4, 0, 30, 0, 123456)
    bronze = rows(
        "id bigint, tipo string, data_criacao timestamp_ntz, id_associado bigint, _rescued string",
        (7, " corrente\t", moment, 1, None),
    )
    assert conta.transform(bronze).collect() == [(7, "corrente", moment, 1, None)]


def test_of_a_card_number_the_digits_stay_with_their_leading_zeros(rows: Rows) -> None:
    bronze = rows(
        "id bigint, num_cartao string, nom_impresso string, data_criacao timestamp_ntz, id_conta bigint, "
        "id_associado bigint, _rescued string",
        (1, " 0000 1234-5678 9012 ", " ANA  LIMA", None, 2, 3, None),
    )
    assert cartao.transform(bronze).collect() == [(1, "0000123456789012", "ANA LIMA", None, 2, 3, None)]


def test_a_movement_keeps_line_breaks_inside_its_description_and_cents(rows: Rows) -> None:
    bronze = rows(
        "id bigint, vlr_transacao decimal(10,2), des_transacao string, data_movimento timestamp_ntz, id_cartao bigint, "
        "_rescued string",
        (1, Decimal("-0.05"), ' a,\n"b"; ', datetime(2024, 1, 1), 9, None),
    )
    assert movimento.transform(bronze).collect() == [(1, Decimal("-0.05"), 'a,\n"b";', datetime(2024, 1, 1), 9, None)]
