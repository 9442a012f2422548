"""The job that everybody writes first: a process a layer, `spark.read.jdbc`, overwrite, `coalesce(1)` for the CSV.

Called by spark-submit with a layer; LAKE is the folder to fill. Prints the seconds of its steps, start-up aside.
"""

import json
import os
import sys
import time

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

LAKE, SCHEMA = os.environ["LAKE"], os.environ["LAKEHOUSE_POSTGRES__SCHEMA"]
SERVER = "//{LAKEHOUSE_POSTGRES__HOST}:{LAKEHOUSE_POSTGRES__PORT}/{LAKEHOUSE_POSTGRES__DATABASE}".format(**os.environ)
ACCESS = {
    "user": os.environ["LAKEHOUSE_POSTGRES__USER"],
    "password": os.environ["LAKEHOUSE_POSTGRES__PASSWORD"],
    "driver": "org.postgresql.Driver",
    "preferTimestampNTZ": "true",
}
TABLES = ("associado", "conta", "cartao", "movimento")


def tidy(name: str) -> Column:
    return F.regexp_replace(F.trim(name), r"\s+", " ")


def bronze(spark: SparkSession) -> None:
    for table in TABLES:
        rows = spark.read.jdbc(f"jdbc:postgresql:{SERVER}", f"{SCHEMA}.{table}", properties=ACCESS)
        rows.write.format("delta").mode("overwrite").save(f"{LAKE}/bronze/{table}")


def silver(spark: SparkSession) -> None:
    read = {table: spark.read.format("delta").load(f"{LAKE}/bronze/{table}") for table in TABLES}
    number = F.regexp_replace("num_cartao", "[ -]", "")
    clean = {
        "associado": read["associado"].select(
            F.col("id").alias("id_associado"),
            tidy("nome").alias("nome"),
            tidy("sobrenome").alias("sobrenome"),
            "idade",
            F.lower(F.trim("email")).alias("email"),
        ),
        "conta": read["conta"].select(
            F.col("id").alias("id_conta"), tidy("tipo").alias("tipo"), "data_criacao", "id_associado"
        ),
        "cartao": read["cartao"].select(
            F.col("id").alias("id_cartao"),
            F.concat(F.repeat(F.lit("*"), F.length(number) - 4), F.right(number, F.lit(4))).alias("num_cartao"),
            tidy("nom_impresso").alias("nom_impresso"),
            "data_criacao",
            "id_conta",
            "id_associado",
        ),
        "movimento": read["movimento"].select(
            F.col("id").alias("id_movimento"),
            "vlr_transacao",
            F.trim("des_transacao").alias("des_transacao"),
            "data_movimento",
            "id_cartao",
        ),
    }
    for table, rows in clean.items():
        rows.write.format("delta").mode("overwrite").save(f"{LAKE}/silver/{table}")


def flat(spark: SparkSession) -> DataFrame:
    read = {table: spark.read.format("delta").load(f"{LAKE}/silver/{table}") for table in TABLES}
    return (
        read["movimento"]
        .join(read["cartao"].withColumnRenamed("data_criacao", "data_criacao_cartao"), "id_cartao")
        .join(read["conta"].drop("id_associado").withColumnRenamed("data_criacao", "data_criacao_conta"), "id_conta")
        .join(read["associado"], "id_associado")
        .select(
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
    )


def gold(spark: SparkSession) -> None:
    flat(spark).write.format("delta").mode("overwrite").save(f"{LAKE}/gold/movimento_flat")


def csv(spark: SparkSession) -> None:
    rows = spark.read.format("delta").load(f"{LAKE}/gold/movimento_flat")
    options = {"header": "true", "quote": '"', "escape": '"', "emptyValue": '""'}
    options |= {"ignoreLeadingWhiteSpace": "false", "ignoreTrailingWhiteSpace": "false"}
    ordered = rows.orderBy("_id_movimento").drop("_id_movimento")
    ordered.coalesce(1).write.mode("overwrite").options(**options).csv(f"{LAKE}/csv")


def main(layer: str) -> None:
    spark = (
        SparkSession.builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .getOrCreate()
    )
    for step in {"bronze": [bronze], "silver": [silver], "gold": [gold, csv]}[layer]:
        began = time.monotonic()
        step(spark)
        print(json.dumps({step.__name__: time.monotonic() - began}), flush=True)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1])
