"""Business domains: which of them a call is about, and that a new one is new files and nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conf.settings import PROJECT
from tests.support.process import clean_environment

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


def test_a_new_domain_is_three_files_and_no_other_edit(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for package in ("conf", "bronze", "silver", "gold", "pipelines", "requirements"):
        shutil.copytree(PROJECT / package, project / package, ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".jars").symlink_to(PROJECT / ".jars")
    for layer, name, text in (("bronze", "leituras", BRONZE), ("silver", "leituras", SILVER), ("gold", "divida", GOLD)):
        folder = project / layer / "agua"
        folder.mkdir()
        (folder / "__init__.py").write_text('"""Water."""\n')
        (folder / f"{name}.py").write_text(text)
    env = clean_environment(tmp_path) | {"PYTHONPATH": str(project), "DOMAIN": "agua"}
    words = ["seed", "bronze", "silver", "gold", "answers", "quality", "reconcile", "export", "status"]
    command = [sys.executable, "-m", "pipelines", *words]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "gold.divida: What each quarter owes." in result.stdout and "everything agrees" in result.stdout
    assert "line:unreadable" in result.stdout and "agua" in result.stdout
    lines = (tmp_path / "landing/agua/leituras.csv").read_bytes().decode("latin-1").split("\r\n")
    owed = sum(int(line.split(";")[1].replace(",", "")) for line in lines[1:-1])
    rows = (tmp_path / "export/divida.csv").read_text("utf-8").splitlines()
    assert rows[0] == "bairro,valor" and len(lines) == 102
    assert sum(int(row.rsplit(",", 1)[1].replace(".", "")) for row in rows[1:]) == owed


@pytest.mark.parametrize(
    ("file", "message"),
    [("agua/x.py", "agua has no __init__.py"), ("condominio/x.py", "x cannot be imported: NameError")],
)
def test_a_table_that_cannot_be_found_or_imported_is_named(tmp_path: Path, file: str, message: str) -> None:
    for package in ("conf", "bronze", "silver", "gold", "pipelines"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "silver" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "silver" / file).write_text("TABLE = Table()\n")
    env = clean_environment(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pipelines", "bronze"]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and message in result.stderr, result.stderr


SILVER = '''"""Water readings with trimmed texts. One row per reading."""

from pyspark.sql import DataFrame

from bronze.agua import leituras
from conf.contract import Table
from silver.columns import cleaned

TABLE = Table(__name__, __doc__, inputs=(leituras.TABLE,), columns=leituras.TABLE.carried())


def transform(leituras: DataFrame) -> DataFrame:
    return leituras.select(*cleaned(TABLE), "_rescued")
'''
