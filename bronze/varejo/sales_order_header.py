"""Sales orders. One row per order."""

from bronze.varejo import customer, export
from conf.contract import Column, Pii, Reference, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=export("Sales.SalesOrderHeader", "SubTotal", "TaxAmt", "Freight", "TotalDue"),
    columns=(
        Column("SalesOrderID", "bigint", "Order id", key=True),
        Column("RevisionNumber", "integer", "How often the order was changed", fake=fake("between", 8, 9)),
        Column(
            "OrderDate",
            "timestamp_ntz",
            "When it was placed",
            fake=fake("choice", *range(1314835200, 1318000000, 86400)),
        ),
        Column("DueDate", "timestamp_ntz", "When it is due", fake=fake("moment", "2011-05-01")),
        Column(
            "ShipDate", "timestamp_ntz", "When it was sent", nullable=True, fake=fake("moment", "2011-05-01", nulls=0.1)
        ),
        Column("Status", "integer", "1 in process to 6 cancelled", fake=fake("between", 1, 6)),
        Column("OnlineOrderFlag", "boolean", "Placed online by the customer", fake=fake("between", 0, 1)),
        Column("SalesOrderNumber", "string", "Order number, as people use it", fake=fake("guid")),
        Column("PurchaseOrderNumber", "string", "The customer's own order number", nullable=True),
        Column(
            "AccountNumber",
            "string",
            "The customer's account number",
            nullable=True,
            pii=Pii.INDIRECT,
            fake=fake("guid"),
        ),
        Column("CustomerID", "bigint", "Customer", reference=Reference(customer.TABLE)),
        Column("SalesPersonID", "bigint", "Who sold it", nullable=True, pii=Pii.INDIRECT),
        Column("TerritoryID", "bigint", "Territory", nullable=True, fake=fake("between", 1, 10)),
        Column("BillToAddressID", "bigint", "Address for the bill", pii=Pii.INDIRECT, fake=fake("between", 1, 29883)),
        Column("ShipToAddressID", "bigint", "Address for the goods", pii=Pii.INDIRECT, fake=fake("between", 1, 29883)),
        Column("ShipMethodID", "bigint", "How it is sent", fake=fake("choice", 1, 5)),
        Column(
            "CreditCardID", "bigint", "Id of the card that paid, not the card number", nullable=True, pii=Pii.INDIRECT
        ),
        Column("CreditCardApprovalCode", "string", "The card issuer's approval", nullable=True, pii=Pii.INDIRECT),
        Column("CurrencyRateID", "bigint", "Exchange rate", nullable=True, fake=fake("between", 1, 9, nulls=0.9)),
        Column("SubTotal", "decimal(19,4)", "Sum of the order's rows", fake=fake("amount")),
        Column("TaxAmt", "decimal(19,4)", "Tax", fake=fake("amount")),
        Column("Freight", "decimal(19,4)", "Freight", fake=fake("amount")),
        Column(
            "TotalDue",
            "decimal(19,4)",
            "Total that the customer owes",
            fake=fake("plus", "SubTotal", "TaxAmt", "Freight"),
        ),
        Column("Comment", "string", "Comment", nullable=True, pii=Pii.INDIRECT),
        Column("rowguid", "string", "Unique id of the row", fake=fake("guid")),
        Column("ModifiedDate", "timestamp_ntz", "When the row was last changed", fake=fake("moment", "2011-01-01")),
    ),
    fake_rows=0.3,
)
