"""A domain that the project does not have: water readings in files, and what each quarter owes."""

BRONZE = '''"""Water readings as their files have them. One row per line."""

from conf.contract import Column, Csv, Files, Table, fake

TABLE = Table(
    __name__,
    __doc__,
    files=Files("leituras*.csv", Csv(delimiter=";", encoding="latin-1", line_end="\\r\\n", decimal_comma=("valor",))),
    columns=(
        Column("leitura_id", "bigint", "Reading id", key=True, serial=True),
        Column("bairro", "string", "Quarter", fake=fake("words", "bairro")),
        Column("valor", "decimal(15,2)", "Amount in reais", fake=fake("amount")),
    ),
    fake_rows=0.01,
)
'''

SILVER = '''"""Water readings with trimmed texts. One row per reading."""

from pyspark.sql import DataFrame

from bronze.agua import leituras
from conf.contract import Table
from silver.columns import cleaned

TABLE = Table(__name__, __doc__, inputs=(leituras.TABLE,), columns=leituras.TABLE.carried())


def transform(leituras: DataFrame) -> DataFrame:
    return leituras.select(*cleaned(TABLE), "_rescued")
'''

GOLD = '''"""What each quarter owes. One row per quarter."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from conf.contract import Column, Table, Total
from silver.agua import leituras

TABLE = Table(
    __name__,
    __doc__,
    inputs=(leituras.TABLE,),
    columns=(
        Column("bairro", "string", "Quarter", key=True),
        Column("valor", "decimal(25,2)", "What it owes", total=Total(leituras.TABLE, "valor")),
    ),
)


def transform(leituras: DataFrame) -> DataFrame:
    return leituras.groupBy("bairro").agg(F.sum("valor").alias("valor"))
'''

FILES = {
    "bronze/agua/__init__.py": '"""Water."""\n',
    "silver/agua/__init__.py": '"""Water."""\n',
    "gold/agua/__init__.py": '"""Water."""\n',
    "bronze/agua/leituras.py": BRONZE,
    "silver/agua/leituras.py": SILVER,
    "gold/agua/divida.py": GOLD,
}
