"""Cards with the digits of their number, masked unless the settings say plain. One row per card."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bronze.cartoes import cartao
from conf.contract import Column, Pii, Reference, Table, warn
from silver.cartoes import associado, conta
from silver.columns import card_digits, tidy

TABLE = Table(
    __name__,
    __doc__,
    inputs=(cartao.TABLE,),
    columns=(
        Column("id_cartao", "bigint", "Card id", key=True, source="id"),
        Column(
            "num_cartao",
            "string",
            "Card number",
            nullable=True,
            pii=Pii.CARD,
            rules=(
                warn("num_cartao RLIKE '^[0-9]{13,19}$'", "num_cartao has 13 to 19 digits"),
                warn("num_cartao NOT RLIKE '^[0-9]+$' OR luhn_check(num_cartao)", "num_cartao passes Luhn"),
            ),
        ),
        Column("nom_impresso", "string", "Name printed on the card", nullable=True, pii=Pii.DIRECT),
        Column("data_criacao", "timestamp_ntz", "When the card was issued", nullable=True),
        Column("id_conta", "bigint", "Account the card draws on", reference=Reference(conta.TABLE, ("id_associado",))),
        Column("id_associado", "bigint", "Member who holds the card", reference=Reference(associado.TABLE)),
    ),
    rules=(warn("id_associado = conta.id_associado", "card and account have the same member"),),
)


def transform(cartao: DataFrame) -> DataFrame:
    return cartao.select(
        F.col("id").alias("id_cartao"),
        card_digits("num_cartao").alias("num_cartao"),
        tidy("nom_impresso").alias("nom_impresso"),
        "data_criacao",
        "id_conta",
        "id_associado",
        "_rescued",
    )
