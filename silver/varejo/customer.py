"""Customers with a checked reference to their person, if they have one. One row per customer."""

from pyspark.sql import DataFrame

from bronze.varejo import customer
from conf.contract import Reference, Table
from silver.columns import cleaned
from silver.varejo import person

TABLE = Table(
    __name__,
    __doc__,
    inputs=(customer.TABLE,),
    columns=customer.TABLE.carried(PersonID=Reference(person.TABLE)),
)


def transform(customer: DataFrame) -> DataFrame:
    return customer.select(*cleaned(TABLE), "_rescued")
