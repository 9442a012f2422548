"""Card movements with a readable amount and date. One row per movement."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bronze.cartoes import movimento
from conf.contract import Column, Reference, Table
from silver.cartoes import cartao
from silver.columns import trimmed

TABLE = Table(
    __name__,
    __doc__,
    inputs=(movimento.TABLE,),
    columns=(
        Column("id_movimento", "bigint", "Movement id", key=True, source="id"),
        Column("vlr_transacao", "decimal(10,2)", "Amount in reais; a refund is negative"),
        Column("des_transacao", "string", "Description; line breaks inside it stay", nullable=True),
        Column("data_movimento", "timestamp_ntz", "When the card moved"),
        Column("id_cartao", "bigint", "Card that moved", reference=Reference(cartao.TABLE)),
    ),
)


def transform(movimento: DataFrame) -> DataFrame:
    return movimento.select(
        F.col("id").alias("id_movimento"),
        "vlr_transacao",
        trimmed("des_transacao").alias("des_transacao"),
        "data_movimento",
        "id_cartao",
        "_rescued",
    )
