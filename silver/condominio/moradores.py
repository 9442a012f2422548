"""Residents with tidy names. One row per resident."""

from pyspark.sql import DataFrame

from bronze.condominio import moradores
from conf.contract import Reference, Table
from silver.columns import tidy
from silver.condominio import condominios

TABLE = Table(
    __name__,
    __doc__,
    inputs=(moradores.TABLE,),
    columns=moradores.TABLE.carried(condominio_id=Reference(condominios.TABLE)),
)


def transform(moradores: DataFrame) -> DataFrame:
    return moradores.select(
        "morador_id",
        tidy("nome").alias("nome"),
        "condominio_id",
        "data_registro",
        "_rescued",
    )
