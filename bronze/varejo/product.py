"""Products for sale or for making other products. One row per product."""

from bronze.varejo import export
from conf.contract import Column, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=export("Production.Product", "StandardCost", "ListPrice"),
    columns=(
        Column("ProductID", "bigint", "Product id", key=True),
        Column("Name", "string", "Name", fake=fake("words", "catch_phrase")),
        Column("ProductNumber", "string", "Product number, as people use it", fake=fake("guid")),
        Column("MakeFlag", "boolean", "Made in house, not bought", fake=fake("between", 0, 1)),
        Column("FinishedGoodsFlag", "boolean", "May be sold", fake=fake("between", 0, 1)),
        Column("Color", "string", "Colour", nullable=True, fake=fake("choice", "Black", "Blue", nulls=0.5)),
        Column("SafetyStockLevel", "integer", "Minimum quantity in stock", fake=fake("between", 4, 1000)),
        Column("ReorderPoint", "integer", "Quantity at which more is ordered", fake=fake("between", 3, 750)),
        Column("StandardCost", "decimal(19,4)", "Cost", fake=fake("amount")),
        Column("ListPrice", "decimal(19,4)", "Price", fake=fake("amount")),
        Column("Size", "string", "Size", nullable=True, fake=fake("choice", "38", "M", nulls=0.5)),
        Column(
            "SizeUnitMeasureCode", "string", "Unit of the size", nullable=True, fake=fake("choice", "CM ", nulls=0.7)
        ),
        Column(
            "WeightUnitMeasureCode",
            "string",
            "Unit of the weight",
            nullable=True,
            fake=fake("choice", "G  ", nulls=0.7),
        ),
        Column("Weight", "decimal(8,2)", "Weight", nullable=True, fake=fake("amount", nulls=0.7)),
        Column("DaysToManufacture", "integer", "Days to make one", fake=fake("between", 0, 4)),
        Column("ProductLine", "string", "Product line", nullable=True, fake=fake("choice", "M ", "R ", nulls=0.4)),
        Column("Class", "string", "Class", nullable=True, fake=fake("choice", "H ", "L ", nulls=0.5)),
        Column("Style", "string", "Style", nullable=True, fake=fake("choice", "U ", "W ", nulls=0.5)),
        Column("ProductSubcategoryID", "bigint", "Subcategory", nullable=True, fake=fake("between", 1, 37, nulls=0.4)),
        Column("ProductModelID", "bigint", "Model", nullable=True, fake=fake("between", 1, 119, nulls=0.4)),
        Column("SellStartDate", "timestamp_ntz", "First day of sale", fake=fake("moment", "2008-01-01")),
        Column("SellEndDate", "timestamp_ntz", "Last day of sale", nullable=True),
        Column("DiscontinuedDate", "timestamp_ntz", "When it was discontinued", nullable=True),
        Column("rowguid", "string", "Unique id of the row", fake=fake("guid")),
        Column("ModifiedDate", "timestamp_ntz", "When the row was last changed", fake=fake("moment", "2011-01-01")),
    ),
    fake_rows=0.01,
)
