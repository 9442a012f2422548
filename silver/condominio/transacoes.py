"""Transactions of residents on properties. One row per transaction."""

from pyspark.sql import DataFrame

from bronze.condominio import transacoes
from conf.contract import Reference, Table, warn
from silver.columns import cleaned
from silver.condominio import imoveis, moradores

TABLE = Table(
    __name__,
    __doc__,
    inputs=(transacoes.TABLE,),
    columns=transacoes.TABLE.carried(
        imovel_id=Reference(imoveis.TABLE, ("condominio_id",)),
        morador_id=Reference(moradores.TABLE, ("condominio_id", "data_registro")),
    ),
    rules=(
        warn("imoveis.condominio_id = moradores.condominio_id", "property and resident have the same condominium"),
        warn("data_transacao >= moradores.data_registro", "the resident was registered before the transaction"),
    ),
)


def transform(transacoes: DataFrame) -> DataFrame:
    return transacoes.select(*cleaned(TABLE), "_rescued")
