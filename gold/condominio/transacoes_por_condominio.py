"""Transactions per condominium: on its properties, and by its residents, who may buy elsewhere. One row per
condominium."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Column, Table, Total
from silver.condominio import condominios, imoveis, moradores, transacoes

ROWS, AMOUNT = Total(transacoes.TABLE), Total(transacoes.TABLE, "valor_transacao")

TABLE = Table(
    __name__,
    __doc__,
    inputs=(transacoes.TABLE, imoveis.TABLE, moradores.TABLE, condominios.TABLE),
    columns=(
        Column("condominio_id", "bigint", "Condominium id", key=True),
        Column("nome_condominio", "string", "Name", nullable=True),
        Column("transacoes_imoveis", "bigint", "Transactions on its properties", total=ROWS),
        Column("valor_imoveis", "decimal(25,2)", "Their sum in reais", total=AMOUNT),
        Column("transacoes_moradores", "bigint", "Transactions by its residents", total=ROWS),
        Column("valor_moradores", "decimal(25,2)", "Their sum in reais", total=AMOUNT),
    ),
)


def transform(transacoes: DataFrame, imoveis: DataFrame, moradores: DataFrame, condominios: DataFrame) -> DataFrame:
    of_properties = _summed(transacoes.join(imoveis, on="imovel_id", how="inner"), "imoveis")
    of_residents = _summed(transacoes.join(moradores, on="morador_id", how="inner"), "moradores")
    return (
        condominios.join(of_properties, on="condominio_id", how="left")
        .join(of_residents, on="condominio_id", how="left")
        .select(
            "condominio_id",
            F.col("nome").alias("nome_condominio"),
            *(
                F.coalesce(name, F.lit(0)).cast(TABLE[name].type).alias(name)
                for name in ("transacoes_imoveis", "valor_imoveis", "transacoes_moradores", "valor_moradores")
            ),
        )
    )


def _summed(rows: DataFrame, whose: str) -> DataFrame:
    """Count and sum of the transactions per condominium, as `transacoes_<whose>` and `valor_<whose>`."""
    return rows.groupBy("condominio_id").agg(
        F.count(F.lit(1)).alias(f"transacoes_{whose}"), F.sum("valor_transacao").alias(f"valor_{whose}")
    )
