"""Every accepted card movement with its card, the card's account and the card's member. One row per movement."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Column, Pii, Table
from silver.cartoes import associado, cartao, conta, movimento

TABLE = Table(
    __name__,
    __doc__,
    inputs=(movimento.TABLE, cartao.TABLE, conta.TABLE, associado.TABLE),
    one_row_per=movimento.TABLE,
    csv=True,
    columns=(
        Column("nome_associado", "string", "First name of the card's member", nullable=True, pii=Pii.DIRECT),
        Column("sobrenome_associado", "string", "Last name of the card's member", nullable=True, pii=Pii.DIRECT),
        Column("idade_associado", "integer", "Age in years of the card's member", nullable=True, pii=Pii.INDIRECT),
        Column(
            "vlr_transacao_movimento",
            "decimal(10,2)",
            "Amount in reais; a refund is negative",
            source="vlr_transacao",
        ),
        Column("des_transacao_movimento", "string", "Description", nullable=True),
        Column("data_movimento", "timestamp_ntz", "When the card moved"),
        Column(
            "numero_cartao", "string", "Card number, masked unless the settings say plain", nullable=True, pii=Pii.CARD
        ),
        Column("nome_impresso_cartao", "string", "Name printed on the card", nullable=True, pii=Pii.DIRECT),
        Column("data_criacao_cartao", "timestamp_ntz", "When the card was issued", nullable=True),
        Column("tipo_conta", "string", "Type of the card's account", nullable=True),
        Column("data_criacao_conta", "timestamp_ntz", "When the card's account was opened", nullable=True),
        Column("_id_movimento", "bigint", "Movement id", key=True, source="id_movimento"),
    ),
)


def transform(movimento: DataFrame, cartao: DataFrame, conta: DataFrame, associado: DataFrame) -> DataFrame:
    # The small tables are joined first, so that the movements are joined only once.
    cards = (
        cartao.withColumnRenamed("data_criacao", "data_criacao_cartao")
        .join(
            conta.select("id_conta", "tipo", F.col("data_criacao").alias("data_criacao_conta")),
            on="id_conta",
            how="inner",
        )
        .join(associado, on="id_associado", how="inner")
    )
    return movimento.join(F.broadcast(cards), on="id_cartao", how="inner").select(
        F.col("nome").alias("nome_associado"),
        F.col("sobrenome").alias("sobrenome_associado"),
        F.col("idade").alias("idade_associado"),
        F.col("vlr_transacao").alias("vlr_transacao_movimento"),
        F.col("des_transacao").alias("des_transacao_movimento"),
        "data_movimento",
        F.col("num_cartao").alias("numero_cartao"),
        F.col("nom_impresso").alias("nome_impresso_cartao"),
        "data_criacao_cartao",
        F.col("tipo").alias("tipo_conta"),
        "data_criacao_conta",
        F.col("id_movimento").alias("_id_movimento"),
    )
