"""The products in each order, sold under an offer that includes them. One row per order and product in it."""

from pyspark.sql import DataFrame

from bronze.varejo import sales_order_detail
from conf.contract import Reference, Table
from silver.columns import cleaned
from silver.varejo import sales_order_header, special_offer_product

TABLE = Table(
    __name__,
    __doc__,
    inputs=(sales_order_detail.TABLE,),
    columns=sales_order_detail.TABLE.carried(
        SalesOrderID=Reference(sales_order_header.TABLE),
        SpecialOfferID=Reference(special_offer_product.TABLE, with_columns=("ProductID",)),
    ),
)


def transform(sales_order_detail: DataFrame) -> DataFrame:
    return sales_order_detail.select(*cleaned(TABLE), "_rescued")
