"""Business domains: which of them a call is about, and that a new one is new files and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conf.settings import PROJECT, load
from pipelines.core import catalogue, identity
from pipelines.core.console import Report
from pipelines.core.errors import UsageFault
from pipelines.sources.domains import in_use, is_there, parse_domains, ready
from tests.conftest import clean_environment

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


def test_a_fourth_domain_is_three_files_and_no_other_edit(tmp_path: Path) -> None:
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
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "gold.divida: What each quarter owes." in done.stdout and "everything agrees" in done.stdout
    assert "line:unreadable" in done.stdout and "agua" in done.stdout
    lines = (tmp_path / "landing/agua/leituras.csv").read_bytes().decode("latin-1").split("\r\n")
    owed = sum(int(line.split(";")[1].replace(",", "")) for line in lines[1:-1])
    rows = (tmp_path / "export/divida.csv").read_text("utf-8").splitlines()
    assert rows[0] == "bairro,valor" and len(lines) == 102
    assert sum(int(row.rsplit(",", 1)[1].replace(".", "")) for row in rows[1:]) == owed


def test_a_new_domain_does_not_have_the_others_built_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("conf", "bronze", "silver", "gold", "pipelines", "requirements"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "PROJECT", tmp_path)

    def known() -> list[str]:
        return [identity.software.__wrapped__(domain) for domain in ("cartoes", "varejo")]

    cards, retail = known()
    assert cards != retail
    (tmp_path / "silver/agua").mkdir()
    (tmp_path / "silver/agua/leituras.py").write_text(SILVER)
    assert known() == [cards, retail]
    with (tmp_path / "silver/varejo/person.py").open("a") as file:
        file.write("# changed\n")
    assert known()[0] == cards and known()[1] != retail
    with (tmp_path / "silver/columns.py").open("a") as file:
        file.write("# changed\n")
    assert known()[0] != cards


@pytest.mark.parametrize(
    ("file", "said"), [("agua/x.py", "agua has no __init__.py"), ("condominio/x.py", "x cannot be imported: NameError")]
)
def test_a_table_that_cannot_be_found_or_imported_is_named(tmp_path: Path, file: str, said: str) -> None:
    for package in ("conf", "bronze", "silver", "gold", "pipelines"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "silver" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "silver" / file).write_text("TABLE = Table()\n")
    env = clean_environment(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "pipelines", "bronze"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_domains_are_named_or_those_whose_source_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.sources.postgres.embedded.home", lambda: tmp_path / "none")
    settings, _ = load({}, base=tmp_path)
    assert catalogue.domains() == ("cartoes", "condominio", "varejo")
    assert parse_domains("") == () and parse_domains("varejo, cartoes") == ("cartoes", "varejo")
    with pytest.raises(UsageFault, match="DOMAIN names x; there are cartoes, condominio, varejo"):
        parse_domains("x,varejo")
    assert in_use(settings) == ready(settings, "bronze", Report()) == ("cartoes",), "which says how to begin"
    (tmp_path / "landing/varejo").mkdir(parents=True)
    assert in_use(settings) == ready(settings, "bronze", Report()) == ("varejo",)
    server = {"LAKEHOUSE_POSTGRES__HOST": "h", "LAKEHOUSE_POSTGRES__DATABASE": "d", "LAKEHOUSE_POSTGRES__USER": "u"}
    settings, _ = load(server, base=tmp_path)
    assert is_there(settings, "cartoes") and in_use(settings) == ("cartoes", "varejo")
    assert os.environ.get("DOMAIN") is None


@pytest.mark.parametrize("layer", ["bronze", "silver", "gold"])
def test_the_source_of_a_domain_is_of_one_kind(layer: str) -> None:
    for domain in catalogue.domains():
        tables = catalogue.tables_of("bronze", domain)
        assert len({table.files is None for table in tables}) == 1
        assert catalogue.tables_of(layer, domain), "each layer has the domain"
