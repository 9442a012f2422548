"""Properties with a tidy type. One row per property."""

from pyspark.sql import DataFrame

from bronze.condominio import imoveis
from conf.contract import Reference, Table
from silver.columns import tidy
from silver.condominio import condominios

TABLE = Table(
    __name__,
    __doc__,
    inputs=(imoveis.TABLE,),
    columns=imoveis.TABLE.carried(condominio_id=Reference(condominios.TABLE)),
)


def transform(imoveis: DataFrame) -> DataFrame:
    return imoveis.select(
        "imovel_id",
        tidy("tipo").alias("tipo"),
        "condominio_id",
        "valor",
        "_rescued",
    )
