"""People who ordered, and how often; two customers with the same name stay two. One row per customer."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Column, Pii, Table
from silver.varejo import customer, person, sales_order_header

TABLE = Table(
    __name__,
    __doc__,
    inputs=(person.TABLE, customer.TABLE, sales_order_header.TABLE),
    order=("-pedidos", "FirstName", "LastName", "CustomerID"),
    columns=(
        Column("CustomerID", "bigint", "Customer id", key=True),
        Column("FirstName", "string", "First name", pii=Pii.DIRECT),
        Column("MiddleName", "string", "Middle name", nullable=True, pii=Pii.DIRECT),
        Column("LastName", "string", "Last name", pii=Pii.DIRECT),
        Column("pedidos", "bigint", "Orders"),
    ),
)


def transform(person: DataFrame, customer: DataFrame, sales_order_header: DataFrame) -> DataFrame:
    orders = sales_order_header.groupBy("CustomerID").agg(F.count(F.lit(1)).alias("pedidos"))
    return (
        customer.join(orders, on="CustomerID", how="inner")
        .join(person, on=customer["PersonID"] == person["BusinessEntityID"], how="inner")
        .select("CustomerID", "FirstName", "MiddleName", "LastName", "pedidos")
    )
