"""Quantity ordered per product and date. One row per product and order date."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Column, Table, Total
from silver.varejo import sales_order_detail, sales_order_header

TABLE = Table(
    __name__,
    __doc__,
    inputs=(sales_order_detail.TABLE, sales_order_header.TABLE),
    columns=(
        Column("ProductID", "bigint", "Product id", key=True),
        Column("OrderDate", "timestamp_ntz", "When the orders were placed", key=True),
        Column("quantidade", "bigint", "Sum of OrderQty", total=Total(sales_order_detail.TABLE, "OrderQty")),
    ),
)


def transform(sales_order_detail: DataFrame, sales_order_header: DataFrame) -> DataFrame:
    return (
        sales_order_detail.join(sales_order_header, on="SalesOrderID", how="inner")
        .groupBy("ProductID", "OrderDate")
        .agg(F.sum("OrderQty").alias("quantidade"))
    )
