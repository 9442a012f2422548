"""Orders with at least three rows, and how many rows they have. One row per order."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Column, Table
from silver.varejo import sales_order_detail

TABLE = Table(
    __name__,
    __doc__,
    inputs=(sales_order_detail.TABLE,),
    order=("-itens", "SalesOrderID"),
    columns=(
        Column("SalesOrderID", "bigint", "Order id", key=True),
        Column("itens", "bigint", "Rows of the order"),
    ),
)


def transform(sales_order_detail: DataFrame) -> DataFrame:
    return sales_order_detail.groupBy("SalesOrderID").agg(F.count(F.lit(1)).alias("itens")).where("itens >= 3")
