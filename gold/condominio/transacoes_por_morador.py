"""Transactions per resident, by id: two residents with the same name stay two. One row per resident."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Column, Pii, Table, Total
from silver.condominio import moradores, transacoes

TABLE = Table(
    __name__,
    __doc__,
    inputs=(transacoes.TABLE, moradores.TABLE),
    columns=(
        Column("morador_id", "bigint", "Resident id", key=True),
        Column("nome", "string", "Full name", nullable=True, pii=Pii.DIRECT),
        Column("transacoes", "bigint", "Transactions by the resident", total=Total(transacoes.TABLE)),
        Column("valor", "decimal(25,2)", "Their sum in reais", total=Total(transacoes.TABLE, "valor_transacao")),
    ),
)


def transform(transacoes: DataFrame, moradores: DataFrame) -> DataFrame:
    summed = transacoes.groupBy("morador_id").agg(
        F.count(F.lit(1)).alias("transacoes"), F.sum("valor_transacao").alias("valor")
    )
    return moradores.join(summed, on="morador_id", how="left").select(
        "morador_id",
        "nome",
        F.coalesce("transacoes", F.lit(0)).cast("bigint").alias("transacoes"),
        F.coalesce("valor", F.lit(0)).cast("decimal(25,2)").alias("valor"),
    )
