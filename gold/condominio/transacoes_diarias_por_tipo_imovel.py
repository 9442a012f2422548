"""Transactions per day and type of property. One row per day and type."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Column, Table, Total
from silver.condominio import imoveis, transacoes

TABLE = Table(
    __name__,
    __doc__,
    inputs=(transacoes.TABLE, imoveis.TABLE),
    columns=(
        Column("data_transacao", "date", "Day", key=True),
        Column("tipo", "string", "Property type; `sem tipo` if the property has none", key=True),
        Column("transacoes", "bigint", "Transactions", total=Total(transacoes.TABLE)),
        Column("valor", "decimal(25,2)", "Their sum in reais", total=Total(transacoes.TABLE, "valor_transacao")),
    ),
)


def transform(transacoes: DataFrame, imoveis: DataFrame) -> DataFrame:
    return (
        transacoes.join(imoveis, on="imovel_id", how="inner")
        .groupBy("data_transacao", F.coalesce("tipo", F.lit("sem tipo")).alias("tipo"))
        .agg(F.count(F.lit(1)).alias("transacoes"), F.sum("valor_transacao").alias("valor"))
    )
