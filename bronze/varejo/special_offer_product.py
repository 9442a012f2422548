"""The products in each special offer; a product may be in several offers. One row per offer and product."""

from bronze.varejo import export, product
from conf.contract import Column, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=export("Sales.SpecialOfferProduct"),
    columns=(
        Column("SpecialOfferID", "bigint", "Special offer", key=True, fake=fake("turn", "ProductID")),
        Column(
            "ProductID",
            "bigint",
            "Product",
            key=True,
            reference=Reference(product.TABLE),
            fake=fake("in_turn", "ProductID"),
        ),
        Column("rowguid", "string", "Unique id of the row", fake=fake("guid")),
        Column("ModifiedDate", "timestamp_ntz", "When the row was last changed", fake=fake("moment", "2011-01-01")),
    ),
    fake_rows=0.025,
)
