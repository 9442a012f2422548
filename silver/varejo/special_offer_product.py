"""Products of special offers. One row per offer and product."""

from pyspark.sql import DataFrame

from bronze.varejo import special_offer_product
from conf.contract import Reference, Table
from silver.columns import cleaned
from silver.varejo import product

TABLE = Table(
    __name__,
    __doc__,
    inputs=(special_offer_product.TABLE,),
    columns=special_offer_product.TABLE.carried(ProductID=Reference(product.TABLE)),
)


def transform(special_offer_product: DataFrame) -> DataFrame:
    return special_offer_product.select(*cleaned(TABLE), "_rescued")
