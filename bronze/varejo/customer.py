"""Customers: people, stores, or people who buy for a store. One row per customer."""

from bronze.varejo import export, person
from conf.contract import Column, Pii, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=export("Sales.Customer"),
    columns=(
        Column("CustomerID", "bigint", "Customer id", key=True),
        Column(
            "PersonID", "bigint", "Person, if the customer is one", nullable=True, reference=Reference(person.TABLE)
        ),
        Column(
            "StoreID",
            "bigint",
            "Store, if the customer is one",
            nullable=True,
            fake=fake("between", 292, 2051, nulls=0.9),
        ),
        Column("TerritoryID", "bigint", "Territory", nullable=True, fake=fake("between", 1, 10)),
        Column("AccountNumber", "string", "Account number, as people use it", pii=Pii.INDIRECT, fake=fake("guid")),
        Column("rowguid", "string", "Unique id of the row", fake=fake("guid")),
        Column("ModifiedDate", "timestamp_ntz", "When the row was last changed", fake=fake("moment", "2011-01-01")),
    ),
    fake_rows=0.12,
)
