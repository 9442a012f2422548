"""The five questions about retail, answered once more in plain Python from the files, and compared."""

import csv
import random
import shutil
from collections import Counter, defaultdict
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from bronze.varejo import person, product, sales_order_detail, sales_order_header
from conf.settings import PROJECT
from pipelines.core import catalogue
from tests.support.condominio import everything
from tests.support.lake import NOWHERE, Lake
from tests.support.prepared import copied_files

REAL = PROJECT.parent / "shared/data/adventureworks"


def read(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def oracle(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The answers, each in the order of its question."""
    details, headers = read(folder, "Sales.SalesOrderDetail"), read(folder, "Sales.SalesOrderHeader")
    products = {row["ProductID"]: row for row in read(folder, "Production.Product")}
    offered = {(row["SpecialOfferID"], row["ProductID"]) for row in read(folder, "Sales.SpecialOfferProduct")}
    people = {row["BusinessEntityID"]: row for row in read(folder, "Person.Person")}
    customers = {row["CustomerID"]: row for row in read(folder, "Sales.Customer")}
    placed = {row["SalesOrderID"]: datetime.fromisoformat(row["OrderDate"]) for row in headers}

    rows = Counter(int(row["SalesOrderID"]) for row in details)
    sold: Counter[str] = Counter()
    on_day: Counter[tuple[int, datetime]] = Counter()
    for row in details:
        if (row["SpecialOfferID"], row["ProductID"]) in offered:
            sold[row["ProductID"]] += int(row["OrderQty"])
        on_day[int(row["ProductID"]), placed[row["SalesOrderID"]]] += int(row["OrderQty"])
    by_days: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for key, quantity in sold.items():
        by_days[int(products[key]["DaysToManufacture"])].append((-quantity, products[key]["Name"]))
    ordered = Counter(row["CustomerID"] for row in headers)
    due = [
        (int(row["SalesOrderID"]), placed[row["SalesOrderID"]], Decimal(row["TotalDue"].replace(",", ".")))
        for row in headers
    ]
    return {
        "pedidos_com_tres_itens": sorted(((key, n) for key, n in rows.items() if n >= 3), key=lambda r: (-r[1], r[0])),
        "mais_vendidos_por_dias_de_fabricacao": [
            (days, place, name, -quantity)
            for days, units in sorted(by_days.items())
            for place, (quantity, name) in enumerate(sorted(units)[:3], 1)
        ],
        "pedidos_por_cliente": sorted(
            (
                int(key),
                them["FirstName"],
                None if them["MiddleName"] == "NULL" else them["MiddleName"],
                them["LastName"],
                n,
            )
            for key, n in ordered.items()
            if (them := people.get(customers[key]["PersonID"]))
        ),
        "quantidade_por_produto_e_data": sorted((*key, quantity) for key, quantity in on_day.items()),
        "pedidos_setembro_2011": sorted(
            (order for order in due if (order[1].year, order[1].month) == (2011, 9) and order[2] > 1000),
            key=lambda order: (-order[2], order[0]),
        ),
    }


def answered(lakehouse: Lake) -> dict[str, list[tuple[Any, ...]]]:
    """Gold's tables, each in the order that its contract says, or of its key."""
    answers = {}
    for table in catalogue.tables_of("gold", "varejo"):
        rows = lakehouse.table("gold", table.name)
        for name in reversed(table.order if table.name != "pedidos_por_cliente" else table.keys):
            rows.sort(key=lambda row, name=name: row[name.lstrip("-")], reverse=name.startswith("-"))  # type: ignore[misc]
        if not table.order:
            rows.sort(key=lambda row: tuple(row[key] for key in table.keys))
        answers[table.name] = [tuple(row.values()) for row in rows]
    return answers


def write(
    lakehouse: Lake, name: str, wanted: dict[str, Any], rows: list[dict[str, Any]], columns: tuple[str, ...]
) -> None:
    """A file of rows, of which columns that they do not say are NULL or `wanted`."""
    lines = [";".join(columns)] + [
        ";".join(
            str(({"rowguid": "x", "ModifiedDate": "2014-01-01 00:00:00.000"} | wanted | row).get(c, "NULL"))
            for c in columns
        )
        for row in rows
    ]
    lakehouse.drop(f"{name}.csv", ("\ufeff" + "".join(f"{line}\r\n" for line in lines)).encode())


def columns_of(module: Any) -> tuple[str, ...]:
    return tuple(column.name for column in module.TABLE.columns)


def made_up(lakehouse: Lake, dice: random.Random) -> None:
    """Few names, few products and few days: ties, homonyms, and offers and products that meet in many ways."""
    from bronze.varejo import customer, special_offer_product

    people, products, orders = range(1, 13), range(1, 21), range(1, 41)
    write(
        lakehouse,
        "Person.Person",
        {"PersonType": "IN", "NameStyle": 0, "EmailPromotion": 0},
        [{"BusinessEntityID": n, "FirstName": dice.choice("AB"), "LastName": dice.choice("CD")} for n in people],
        columns_of(person),
    )
    flags = {"MakeFlag": 0, "FinishedGoodsFlag": 1, "SafetyStockLevel": 1, "ReorderPoint": 1}
    prices = {"StandardCost": "1,5", "ListPrice": "1,5", "SellStartDate": "2008-04-30 00:00:00.000", "Style": "M "}
    write(
        lakehouse,
        "Production.Product",
        flags | prices,
        [
            {"ProductID": n, "Name": f"P{n % 9:02d} {n}", "ProductNumber": n, "DaysToManufacture": n % 3}
            for n in products
        ],
        columns_of(product),
    )
    pairs = sorted({(dice.randint(1, 4), n) for n in products for _ in range(3)})
    write(
        lakehouse,
        "Sales.SpecialOfferProduct",
        {},
        [{"SpecialOfferID": offer, "ProductID": n} for offer, n in pairs],
        columns_of(special_offer_product),
    )
    write(
        lakehouse,
        "Sales.Customer",
        {"TerritoryID": 1, "AccountNumber": "A"},
        [{"CustomerID": 100 + n, **({"PersonID": n} if n < 11 else {})} for n in people],
        columns_of(customer),
    )
    names = (
        "RevisionNumber",
        "Status",
        "OnlineOrderFlag",
        "TerritoryID",
        "BillToAddressID",
        "ShipToAddressID",
        "ShipMethodID",
    )
    headers = []
    for number in orders:
        total = dice.choice(["1000,0000", "1000,0001", "2500,5", "999,9999"])
        day = dice.choice(
            ["2011-08-31 23:59:59.997", "2011-09-01 00:00:00.000", "2011-09-30 23:59:59.997", "2011-10-01 00:00:00.000"]
        )
        amounts = {"SubTotal": total, "TaxAmt": "0,00", "Freight": "0,00", "TotalDue": total}
        headers.append(
            {
                "SalesOrderID": number,
                "OrderDate": day,
                "DueDate": day,
                "CustomerID": 100 + dice.choice(people),
                **amounts,
            }
        )
    write(
        lakehouse,
        "Sales.SalesOrderHeader",
        dict.fromkeys(names, 1) | {"SalesOrderNumber": "S"},
        headers,
        columns_of(sales_order_header),
    )
    details = []
    for number in range(1, 161):
        offer, item = dice.choice(pairs)
        many = {"OrderQty": dice.randint(1, 2), "SalesOrderID": dice.choice(orders), "SalesOrderDetailID": number}
        details.append({"SpecialOfferID": offer, "ProductID": item, **many})
    prices = {"UnitPrice": "1,3333", "UnitPriceDiscount": "0,00", "LineTotal": "1.333300"}
    write(lakehouse, "Sales.SalesOrderDetail", prices, details, columns_of(sales_order_detail))


@pytest.fixture(scope="module")
def orders(any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Made-up orders in all layers."""
    lake = Lake(tmp_path_factory.mktemp("orders"), NOWHERE, any_spark, "varejo")
    made_up(lake, random.Random(7))
    lake.run(QUALITY__MAX_QUARANTINED="0")
    return lake


def test_made_up_orders_are_answered_as_the_questions_say(orders: Lake) -> None:
    expected = oracle(orders.folder / "landing/varejo")
    best = expected["mais_vendidos_por_dias_de_fabricacao"]
    assert any(row[0] == other[0] and row[3] == other[3] for row, other in pairwise(best)), "a tie"
    people = [row[1:4] for row in expected["pedidos_por_cliente"]]
    assert len(set(people)) < len(people), "homonyms"
    assert 0 < len(expected["pedidos_setembro_2011"]) < 40 and all(expected.values())
    assert answered(orders) == expected


def test_newer_exports_give_what_a_run_of_them_alone_gives(orders: Lake, tmp_path: Path) -> None:
    """The newest export is the one that `orders` alone ran with."""
    varejo, name = copied_files(orders, tmp_path), "Sales.SpecialOfferProduct.csv"
    newest = (varejo.folder / "landing/varejo" / name).read_bytes()
    offers = newest.splitlines(keepends=True)
    varejo.drop(name, b"".join([*offers[:-4], b"x\r\n"]))  # what was sold by the last four loses its offer
    varejo.run("bronze", "silver")
    unreadable = varejo.table("silver", "special_offer_product__quarantine")
    assert [row["_reasons"] for row in unreadable] == [["line:unreadable"]]
    gone = {tuple(line.decode().split(";")[:2]) for line in offers[-4:]}
    details = read(varejo.folder / "landing/varejo", "Sales.SalesOrderDetail")
    sold = {int(row["SalesOrderDetailID"]) for row in details if (row["SpecialOfferID"], row["ProductID"]) in gone}
    lost = varejo.table("silver", "sales_order_detail__quarantine")
    assert sold and {(row["SalesOrderDetailID"], *row["_reasons"]) for row in lost} == {
        (key, "special_offer_product:missing") for key in sold
    }
    varejo.drop(name, newest)
    varejo.run("bronze", "silver")
    assert varejo.last("silver").table("special_offer_product").how != "unchanged"
    assert everything(varejo, "silver") == everything(orders, "silver")


@pytest.mark.skipif(not REAL.exists(), reason="the real files are not here")
def test_the_real_files_are_taken_whole_and_answered(varejo: Lake) -> None:
    shutil.copytree(REAL, varejo.folder / "landing/varejo")
    varejo.run(QUALITY__MAX_QUARANTINED="0")
    assert {
        table_run.name: table_run.rows_out for table_run in varejo.last("silver").tables if not table_run.is_beside
    } == {
        "person": 19119,
        "product": 504,
        "customer": 19820,
        "sales_order_header": 31465,
        "sales_order_detail": 121317,
        "special_offer_product": 538,
    }
    assert answered(varejo) == oracle(REAL)
    codes = {row["SizeUnitMeasureCode"] for row in varejo.table("silver", "product")}
    assert codes == {None, "CM"}, "blanks behind a code are no part of it"
    total = varejo.last("silver").table("sales_order_header").totals["TotalDue"]
    assert total == sum(Decimal(row["TotalDue"].replace(",", ".")) for row in read(REAL, "Sales.SalesOrderHeader"))
