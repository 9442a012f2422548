"""The products in each order. One row per order and product in it."""

from bronze.varejo import export, sales_order_header, special_offer_product
from conf.contract import Column, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=export("Sales.SalesOrderDetail", "UnitPrice", "UnitPriceDiscount"),
    columns=(
        Column("SalesOrderID", "bigint", "Order", key=True, reference=Reference(sales_order_header.TABLE)),
        Column("SalesOrderDetailID", "bigint", "Id of the row within the order", key=True),
        Column(
            "CarrierTrackingNumber",
            "string",
            "Tracking number of the carrier",
            nullable=True,
            fake=fake("guid", nulls=0.5),
        ),
        Column("OrderQty", "integer", "Quantity", fake=fake("between", 1, 44)),
        Column("ProductID", "bigint", "Product", fake=fake("same", "SpecialOfferID", "ProductID")),
        Column(
            "SpecialOfferID",
            "bigint",
            "Special offer it was sold under",
            reference=Reference(special_offer_product.TABLE, with_columns=("ProductID",)),
        ),
        Column("UnitPrice", "decimal(19,4)", "Price of one unit", fake=fake("amount")),
        Column(
            "UnitPriceDiscount",
            "decimal(19,4)",
            "Discount, as a share of the price",
            fake=fake("choice", "0.00", "0.25"),
        ),
        Column(
            "LineTotal",
            "decimal(38,6)",
            "Quantity times the price after discount",
            fake=fake("times", "OrderQty", "UnitPrice"),
        ),
        Column("rowguid", "string", "Unique id of the row", fake=fake("guid")),
        Column("ModifiedDate", "timestamp_ntz", "When the row was last changed", fake=fake("moment", "2011-01-01")),
    ),
    fake_rows=1.0,
)
