"""Members with tidy names and a lower-case e-mail. One row per member."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bronze.cartoes import associado
from conf.contract import Column, Pii, Table, warn
from silver.columns import tidy, trimmed

TABLE = Table(
    __name__,
    __doc__,
    inputs=(associado.TABLE,),
    history=True,
    columns=(
        Column("id_associado", "bigint", "Member id", key=True, source="id"),
        Column("nome", "string", "First name", nullable=True, pii=Pii.DIRECT),
        Column("sobrenome", "string", "Last name", nullable=True, pii=Pii.DIRECT),
        Column(
            "idade",
            "integer",
            "Age in years",
            nullable=True,
            pii=Pii.INDIRECT,
            rules=(warn("idade BETWEEN 0 AND 130"),),
        ),
        Column(
            "email",
            "string",
            "E-mail address, lower case",
            nullable=True,
            pii=Pii.DIRECT,
            rules=(warn("email LIKE '_%@_%'", "email has an @"),),
        ),
    ),
)


def transform(associado: DataFrame) -> DataFrame:
    return associado.select(
        F.col("id").alias("id_associado"),
        tidy("nome").alias("nome"),
        tidy("sobrenome").alias("sobrenome"),
        "idade",
        F.lower(trimmed("email")).alias("email"),
        "_rescued",
    )
