"""Condominiums with tidy names and addresses. One row per condominium."""

from pyspark.sql import DataFrame

from bronze.condominio import condominios
from conf.contract import Table
from silver.columns import tidy

TABLE = Table(
    __name__,
    __doc__,
    inputs=(condominios.TABLE,),
    columns=condominios.TABLE.carried(),
)


def transform(condominios: DataFrame) -> DataFrame:
    return condominios.select(
        "condominio_id",
        tidy("nome").alias("nome"),
        tidy("endereco").alias("endereco"),
        "_rescued",
    )
