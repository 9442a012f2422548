"""The three best-selling products for each number of days to manufacture. One row per number of days and place."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from conf.contract import Column, Table
from silver.varejo import product, sales_order_detail, special_offer_product

TABLE = Table(
    __name__,
    __doc__,
    inputs=(sales_order_detail.TABLE, special_offer_product.TABLE, product.TABLE),
    columns=(
        Column("DaysToManufacture", "integer", "Days to make one", key=True),
        Column("posicao", "integer", "Place, 1 to 3; a tie goes by name", key=True),
        Column("Name", "string", "Product"),
        Column("quantidade", "bigint", "Sum of OrderQty"),
    ),
)


def transform(sales_order_detail: DataFrame, special_offer_product: DataFrame, product: DataFrame) -> DataFrame:
    # An offer has many products and a product many offers: only both columns together identify a row.
    offered = sales_order_detail.join(
        special_offer_product.select("SpecialOfferID", "ProductID"), on=["SpecialOfferID", "ProductID"], how="inner"
    )
    sold = (
        offered.groupBy("ProductID")
        .agg(F.sum("OrderQty").alias("quantidade"))
        .join(product, on="ProductID", how="inner")
    )
    best = Window.partitionBy("DaysToManufacture").orderBy(F.desc("quantidade"), "Name", "ProductID")
    return (
        sold.withColumn("posicao", F.row_number().over(best))
        .where("posicao <= 3")
        .select("DaysToManufacture", "posicao", "Name", "quantidade")
    )
