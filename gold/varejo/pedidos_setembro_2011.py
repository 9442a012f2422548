"""Orders placed in September 2011 with more than 1,000 due. One row per order."""

from pyspark.sql import DataFrame

from conf.contract import Column, Table
from silver.varejo import sales_order_header

TABLE = Table(
    __name__,
    __doc__,
    inputs=(sales_order_header.TABLE,),
    order=("-TotalDue", "SalesOrderID"),
    columns=(
        Column("SalesOrderID", "bigint", "Order id", key=True),
        Column("OrderDate", "timestamp_ntz", "When it was placed"),
        Column("TotalDue", "decimal(19,4)", "Total that the customer owes"),
    ),
)


def transform(sales_order_header: DataFrame) -> DataFrame:
    return sales_order_header.where(
        "OrderDate >= TIMESTAMP_NTZ'2011-09-01' AND OrderDate < TIMESTAMP_NTZ'2011-10-01' AND TotalDue > 1000"
    ).select("SalesOrderID", "OrderDate", "TotalDue")
