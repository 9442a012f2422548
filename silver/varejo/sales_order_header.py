"""Sales orders of customers. One row per order."""

from pyspark.sql import DataFrame

from bronze.varejo import sales_order_header
from conf.contract import Reference, Table, warn
from silver.columns import cleaned
from silver.varejo import customer

TABLE = Table(
    __name__,
    __doc__,
    inputs=(sales_order_header.TABLE,),
    columns=sales_order_header.TABLE.carried(CustomerID=Reference(customer.TABLE)),
    rules=(warn("TotalDue = SubTotal + TaxAmt + Freight", "the total is the sum of its parts"),),
)


def transform(sales_order_header: DataFrame) -> DataFrame:
    return sales_order_header.select(*cleaned(TABLE), "_rescued")
