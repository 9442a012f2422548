"""`movimento_flat` on tiny frames."""

from decimal import Decimal

import pytest
from pyspark.sql import DataFrame

from gold.cartoes import movimento_flat
from tests.support.lake import Rows


@pytest.fixture
def silver(rows: Rows) -> dict[str, DataFrame]:
    """Two members; the card of member 2 draws on the account of member 1; member 1 has a second card."""
    return {
        "movimento": rows(
            "id_movimento bigint, vlr_transacao decimal(10,2), des_transacao string, data_movimento timestamp_ntz, "
            "id_cartao bigint",
            (1, Decimal("10.00"), "a", None, 20),
            (2, Decimal("-0.01"), "b", None, 20),
            (3, Decimal("0.00"), "c", None, 10),
        ),
        "cartao": rows(
            "id_cartao bigint, num_cartao string, nom_impresso string, data_criacao timestamp_ntz, id_conta bigint, "
            "id_associado bigint",
            (10, "x10", "ANA", None, 5, 1),
            (20, "x20", "BIA", None, 5, 2),
            (30, "x30", "ANA", None, 5, 1),
        ),
        "conta": rows(
            "id_conta bigint, tipo string, data_criacao timestamp_ntz, id_associado bigint", (5, "corrente", None, 1)
        ),
        "associado": rows(
            "id_associado bigint, nome string, sobrenome string, idade int, email string",
            (1, "Ana", "Lima", 30, None),
            (2, "Bia", "Reis", 40, None),
        ),
    }


def test_the_member_is_the_cards_member_not_the_accounts(silver: dict[str, DataFrame]) -> None:
    flat = movimento_flat.transform(**silver).orderBy("_id_movimento")
    assert flat.select("_id_movimento", "nome_associado", "numero_cartao", "tipo_conta").collect() == [
        (1, "Bia", "x20", "corrente"),
        (2, "Bia", "x20", "corrente"),
        (3, "Ana", "x10", "corrente"),
    ]


def test_every_movement_comes_once_and_money_is_exact(silver: dict[str, DataFrame]) -> None:
    flat = movimento_flat.transform(**silver)
    assert sorted(row[0] for row in flat.select("vlr_transacao_movimento").collect()) == [
        Decimal("-0.01"),
        Decimal("0.00"),
        Decimal("10.00"),
    ]


def test_sort_merge_joins_give_the_same_gold(silver: dict[str, DataFrame]) -> None:
    spark = silver["conta"].sparkSession
    before = sorted(movimento_flat.transform(**silver).collect())
    spark.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")
    try:
        assert sorted(movimento_flat.transform(**silver).collect()) == before
    finally:
        spark.conf.unset("spark.sql.autoBroadcastJoinThreshold")


def test_the_eleven_columns_come_in_the_agreed_order() -> None:
    names = [column.name for column in movimento_flat.TABLE.columns]
    assert names == [
        *("nome_associado", "sobrenome_associado", "idade_associado", "vlr_transacao_movimento"),
        *("des_transacao_movimento", "data_movimento", "numero_cartao", "nome_impresso_cartao"),
        *("data_criacao_cartao", "tipo_conta", "data_criacao_conta", "_id_movimento"),
    ]
