"""Delta tables by name in Spark's catalogue, in memory or in a Hive metastore. Only names are kept there: no file of a
table is read, written or removed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.sql import spark_identifier

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


# The property of the tables that were named here; the place of `properties` among CatalogTable's parameters, from 1.
OURS, PROPERTIES = "lakehouse", 12


def name_table(spark: "SparkSession", database: str, path: Path) -> None:
    """Puts a Delta table into a database, under the name of its folder, in place of what has that name there. Not by
    CREATE TABLE, which reads the log of each table and takes ten times as long."""
    jvm = spark._jvm
    assert jvm is not None
    catalyst, option = jvm.org.apache.spark.sql.catalyst, jvm.scala.Option.apply
    table, empty = catalyst.catalog.CatalogTable, catalyst.catalog.CatalogStorageFormat.empty()
    (constructor,) = jvm.java.lang.Class.forName("org.apache.spark.sql.catalyst.catalog.CatalogTable").getConstructors()
    storage = [empty.productElement(at) for at in range(empty.productArity())]
    storage[0] = option(jvm.java.io.File(str(path)).toURI())
    fields = [
        free_name(spark, database, path.name),
        catalyst.catalog.CatalogTableType.EXTERNAL(),
        catalyst.catalog.CatalogStorageFormat(*storage),
        jvm.org.apache.spark.sql.types.StructType(),
        option("delta"),
    ]
    # Scala's values for the parameters that nobody gives; they count from 1.
    more = range(len(fields) + 1, constructor.getParameterCount() + 1)
    fields += [getattr(table, f"apply$default${number}")() for number in more]
    fields[PROPERTIES - 1] = jvm.PythonUtils.toScalaMap({OURS: path.name})
    spark._jsparkSession.sessionState().catalog().createTable(table(*fields), False, False)


def free_name(spark: "SparkSession", database: str, name: str) -> Any:
    """Spark's identifier of a table, after taking what has that name out of the catalogue."""
    identifier = _identifier(spark, database, name)
    spark._jsparkSession.sessionState().catalog().dropTable(identifier, True, False)
    return identifier


def named_tables(spark: "SparkSession", database: str) -> dict[str, Path | None]:
    """The tables of a database and their folders; None for what was not named here."""
    assert spark._jvm is not None
    catalog, tables = spark._jsparkSession.sessionState().catalog(), dict[str, Path | None]()
    for row in spark.sql(f"SHOW TABLES IN {spark_identifier(database)}").where("NOT isTemporary").collect():
        table = catalog.getTableMetadata(_identifier(spark, database, row.tableName))
        is_ours = table.properties().contains(OURS)
        tables[row.tableName] = Path(spark._jvm.java.io.File(table.location()).getPath()) if is_ours else None
    return tables


def _identifier(spark: "SparkSession", database: str, name: str) -> Any:
    assert spark._jvm is not None
    return spark._jvm.org.apache.spark.sql.catalyst.TableIdentifier(name, spark._jvm.scala.Option.apply(database))
