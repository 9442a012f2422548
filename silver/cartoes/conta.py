"""Accounts with their type trimmed. One row per account."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bronze.cartoes import conta
from conf.contract import Column, Reference, Table
from silver.cartoes import associado
from silver.columns import tidy

TABLE = Table(
    __name__,
    __doc__,
    inputs=(conta.TABLE,),
    history=True,
    columns=(
        Column("id_conta", "bigint", "Account id", key=True, source="id"),
        Column("tipo", "string", "Account type", nullable=True, labels=conta.TABLE["tipo"].labels),
        Column("data_criacao", "timestamp_ntz", "When the account was opened", nullable=True),
        Column("id_associado", "bigint", "Member who holds the account", reference=Reference(associado.TABLE)),
    ),
)


def transform(conta: DataFrame) -> DataFrame:
    return conta.select(
        F.col("id").alias("id_conta"),
        tidy("tipo").alias("tipo"),
        "data_criacao",
        "id_associado",
        "_rescued",
    )
