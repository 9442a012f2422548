"""Products with trimmed codes. One row per product."""

from pyspark.sql import DataFrame

from bronze.varejo import product
from conf.contract import Table
from silver.columns import cleaned

TABLE = Table(
    __name__,
    __doc__,
    inputs=(product.TABLE,),
    columns=product.TABLE.carried(),
)


def transform(product: DataFrame) -> DataFrame:
    return product.select(*cleaned(TABLE), "_rescued")
