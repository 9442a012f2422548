"""`catalog`: a name leads to a table's folder, and nothing is written there."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.commands.catalog import name_tables
from pipelines.commands.shell import last_runs
from pipelines.core import catalogue
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from pipelines.spark.named_tables import named_tables
from tests.support.here import CliHere
from tests.support.lake import Lake, versions


@pytest.fixture
def catalog(nights_lake: Lake) -> Iterator[Lake]:
    """A lake, and a session that knows no table; here the names are kept in memory."""
    for layer in LAYERS:
        nights_lake.spark.sql(f"DROP DATABASE IF EXISTS {layer} CASCADE")
    yield nights_lake
    for layer in LAYERS:
        nights_lake.spark.sql(f"DROP DATABASE IF EXISTS {layer} CASCADE")


def named(lakehouse: Lake) -> list[str]:
    settings = lakehouse.settings()
    return name_tables(settings, last_runs(settings), lakehouse.spark)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}


@pytest.mark.long
@pytest.mark.jvm
def test_a_name_shows_the_head_with_history_versions_and_comments_and_no_call_writes_to_a_table(catalog: Lake) -> None:
    spark, before, lake = catalog.spark, versions(catalog), files(catalog.folder)
    assert named(catalog) == ["bronze: 5 tables, 5 new", "silver: 12 tables, 12 new", "gold: 2 tables, 2 new"]
    assert [line.split(", ")[1] for line in named(catalog)] == ["nothing changed"] * 3
    assert (versions(catalog), files(catalog.folder)) == (before, lake)
    assert spark.table("gold.movimento_flat").count() == 16
    assert spark.sql("SELECT * FROM gold.movimento_flat VERSION AS OF 1").count() == 17
    commits = spark.sql("DESCRIBE HISTORY gold.movimento_flat").orderBy("version").collect()
    assert [commit.userMetadata for commit in commits] == ["gold/1", "gold/2", "gold/3"]
    field = spark.table("silver.conta").schema["id_conta"]
    assert (field.nullable, field.metadata) == (False, {"comment": "Account id"})
    run_log.restore_version(catalog.settings().gold_path / "cartoes/movimento_flat", 1, 4)  # a run that works
    assert spark.table("gold.movimento_flat").count() == 17
    assert named(catalog)[2] == "gold: 2 tables, nothing changed"


@pytest.mark.long
@pytest.mark.jvm
def test_names_follow_a_lake_that_moves_and_contracts_that_go_and_no_file_goes_with_a_name(
    catalog: Lake, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark, lake = catalog.spark, files(catalog.folder)
    named(catalog)
    moved = Lake(tmp_path_factory.mktemp("a blank"), catalog.address, spark)
    shutil.copytree(catalog.folder, moved.folder, dirs_exist_ok=True)
    assert named(moved) == ["bronze: 5 tables, 5 moved", "silver: 12 tables, 12 moved", "gold: 2 tables, 2 moved"]
    assert named_tables(spark, "gold")["movimento_flat"] == moved.settings().gold_path / "cartoes/movimento_flat"
    with monkeypatch.context() as patch:
        known = catalogue.table_of
        patch.setattr(catalogue, "table_of", lambda *names: None if "conta" in names[-1] else known(*names))
        assert [line.split(", ")[1] for line in named(catalog)] == ["4 moved", "9 moved", "2 moved"]
        assert not spark.catalog.tableExists("silver.conta__history")
    assert files(catalog.folder) == lake


@pytest.mark.jvm
def test_a_table_of_somebody_else_is_neither_replaced_nor_dropped(catalog: Lake) -> None:
    spark = catalog.spark
    spark.sql("CREATE DATABASE gold")
    for name in ("mine", "movimento_flat"):
        spark.sql(f"CREATE TABLE gold.{name} (x INT) USING parquet LOCATION '{catalog.folder}/{name}'")
    with pytest.raises(UsageFault, match=r"has a table gold\.movimento_flat that is not of a lake"):
        named(catalog)
    assert not spark.catalog.tableExists("silver.conta")
    spark.sql("DROP TABLE gold.movimento_flat")
    assert named(catalog)[2] == "gold: 2 tables, 2 new" and spark.table("gold.mine").columns == ["x"]


@pytest.mark.jvm
def test_the_command_prints_what_to_type_and_asks_for_a_run_first(catalog: Lake, cli_here: CliHere) -> None:
    result = cli_here("catalog")
    assert (result.returncode, result.stdout) == (0, commands_output(cli_here.folder)), result.stderr
    result = cli_here("catalog", env={"LAKEHOUSE_ROOT": "none"})
    assert result.returncode == 4 and "no layer has a complete run" in result.stderr


def commands_output(folder: Path) -> str:
    settings = Lake(folder, None, None).settings()  # type: ignore[arg-type]
    lines = ["bronze: 5 tables, 5 new", "silver: 12 tables, 12 new", "gold: 2 tables, 2 new", ""]
    properties = f"--properties-file {settings.catalog_path}/spark.conf"
    commands = [f'PATH={Path(sys.executable).parent}:"$PATH"', f"spark-sql {properties} \\"]
    commands += ["  -e 'SELECT count(*) FROM gold.movimento_flat'", f"pyspark {properties}"]
    return "\n".join([*lines, *commands, ""])
