"""People with trimmed names. One row per person."""

from pyspark.sql import DataFrame

from bronze.varejo import person
from conf.contract import Table
from silver.columns import cleaned

TABLE = Table(
    __name__,
    __doc__,
    inputs=(person.TABLE,),
    columns=person.TABLE.carried(),
)


def transform(person: DataFrame) -> DataFrame:
    return person.select(*cleaned(TABLE), "_rescued")
