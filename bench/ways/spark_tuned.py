"""The plain job, tuned: one process for all layers, partitioned JDBC reads with a large fetch size, few partitions, no
web interface, the small tables joined first, and the CSV sorted and written in parallel, then put together.

Called with nothing; LAKE is the folder to fill. Prints the seconds of its steps, start-up aside.
"""

import json
import os
import shutil
import time
from pathlib import Path

import psycopg2
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bench.ways import spark_plain as plain

LAKE, CORES = plain.LAKE, os.cpu_count() or 1
CONFIGURATION = {
    "spark.master": "local[*]",
    "spark.driver.memory": os.environ["DRIVER_MEMORY"],
    "spark.driver.extraClassPath": os.environ["JARS"],
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.shuffle.partitions": str(2 * CORES),
    "spark.sql.autoBroadcastJoinThreshold": str(64 * 2**20),
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols": "1",
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "2",
}
COLUMNS = {"movimento": ("id_cartao",), "cartao": ("id_conta", "id_associado"), "conta": ("id_associado",)}


def bronze(spark: SparkSession) -> None:
    address = {
        "host": "LAKEHOUSE_POSTGRES__HOST",
        "port": "LAKEHOUSE_POSTGRES__PORT",
        "dbname": "LAKEHOUSE_POSTGRES__DATABASE",
        "user": "LAKEHOUSE_POSTGRES__USER",
        "password": "LAKEHOUSE_POSTGRES__PASSWORD",
    }
    with psycopg2.connect(**{word: os.environ[name] for word, name in address.items()}) as connection:
        cursor = connection.cursor()
        for table in plain.TABLES:
            cursor.execute(f"SELECT min(id), max(id) FROM {plain.SCHEMA}.{table}")
            least, most = cursor.fetchone()
            rows = spark.read.jdbc(
                f"jdbc:postgresql:{plain.SERVER}",
                f"{plain.SCHEMA}.{table}",
                column="id",
                lowerBound=least,
                upperBound=most + 1,
                numPartitions=2 * CORES if table == "movimento" else CORES,
                properties=plain.ACCESS | {"fetchsize": "20000"},
            )
            rows.write.format("delta").mode("overwrite").save(f"{LAKE}/bronze/{table}")


def flat(spark: SparkSession) -> DataFrame:
    read = {table: spark.read.format("delta").load(f"{LAKE}/silver/{table}") for table in plain.TABLES}
    cards = (
        read["cartao"]
        .withColumnRenamed("data_criacao", "data_criacao_cartao")
        .join(read["conta"].drop("id_associado").withColumnRenamed("data_criacao", "data_criacao_conta"), "id_conta")
        .join(read["associado"], "id_associado")
    )
    return read["movimento"].join(cards, "id_cartao")


def gold(spark: SparkSession) -> None:
    names = plain.flat(spark).columns
    as_named = {
        "nome_associado": "nome",
        "sobrenome_associado": "sobrenome",
        "idade_associado": "idade",
        "vlr_transacao_movimento": "vlr_transacao",
        "des_transacao_movimento": "des_transacao",
        "numero_cartao": "num_cartao",
        "nome_impresso_cartao": "nom_impresso",
        "tipo_conta": "tipo",
        "_id_movimento": "id_movimento",
    }
    rows = flat(spark).select(*(F.col(as_named.get(name, name)).alias(name) for name in names))
    rows.write.format("delta").mode("overwrite").save(f"{LAKE}/gold/movimento_flat")


def csv(spark: SparkSession) -> None:
    rows = spark.read.format("delta").load(f"{LAKE}/gold/movimento_flat")
    options = {"quote": '"', "escape": '"', "emptyValue": '""'}
    options |= {"ignoreLeadingWhiteSpace": "false", "ignoreTrailingWhiteSpace": "false"}
    ordered = rows.orderBy("_id_movimento").drop("_id_movimento")
    ordered.write.mode("overwrite").options(**options).csv(f"{LAKE}/csv-parts")
    (Path(LAKE) / "csv").mkdir()
    with (Path(LAKE) / "csv" / "movimento_flat.csv").open("wb") as whole:
        whole.write((",".join(ordered.columns) + "\n").encode())
        for part in sorted(Path(LAKE, "csv-parts").glob("part-*.csv")):
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole, 2**20)
    shutil.rmtree(f"{LAKE}/csv-parts")


def main() -> None:
    builder = SparkSession.builder
    for name, value in CONFIGURATION.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    for step in (bronze, plain.silver, gold, csv):
        began = time.monotonic()
        step(spark)
        print(json.dumps({step.__name__: time.monotonic() - began}), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
