"""The file of Spark's properties: whose it is, and what it says."""

import stat
import zipfile
from pathlib import Path

import pytest
from py4j.protocol import Py4JError

from conf.settings import Settings, load
from pipelines.core.errors import StorageFault, UsageFault
from pipelines.spark import metastore

WAREHOUSE = "spark.sql.warehouse.dir"
URL = "jdbc:postgresql://db/hive"


def settings(folder: Path, **given: str) -> Settings:
    return load({f"LAKEHOUSE_{name}": value for name, value in given.items()}, base=folder)[0]


def test_the_file_is_its_owners_and_keeps_any_character_of_a_password(tmp_path: Path) -> None:
    folder = tmp_path / "lake/catalog"
    metastore._write(folder, {WAREHOUSE: "/x", "password": "=a\\b\n=é:#"})
    file = folder / "spark.conf"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, file)] == [0o700, 0o600]
    lines = file.read_text("utf-8").splitlines()[1:]
    assert lines == [f"{WAREHOUSE} /x", "password \\u003da\\u005cb\\u000a=é:#"]
    assert [path.name for path in folder.iterdir()] == ["spark.conf"]


def test_a_folder_with_other_files_is_refused_and_a_lake_that_was_moved_gets_a_new_metastore(tmp_path: Path) -> None:
    (tmp_path / "spark.conf").write_text("mine")
    with pytest.raises(StorageFault, match="holds other files; name an empty one in LAKEHOUSE_CATALOG_PATH"):
        metastore._write(tmp_path, {WAREHOUSE: "/x"})
    assert (tmp_path / "spark.conf").read_text() == "mine"
    folder = tmp_path / "catalog"
    metastore._write(folder, {WAREHOUSE: "/x"})
    (folder / "metastore_db").mkdir()
    metastore._write(folder, {WAREHOUSE: "/x"})
    assert (folder / "metastore_db").exists()
    metastore._write(folder, {WAREHOUSE: "/y"})
    assert not (folder / "metastore_db").exists()


def test_the_metastore_is_embedded_or_the_one_of_the_settings_whose_password_is_on_no_command_line(
    tmp_path: Path,
) -> None:
    embedded = metastore._hadoop(settings(tmp_path))
    assert embedded["javax.jdo.option.ConnectionURL"].startswith("jdbc:derby:") and len(embedded) == 3
    jar = tmp_path / "driver.jar"
    with zipfile.ZipFile(jar, "w") as file:
        file.writestr("META-INF/services/java.sql.Driver", "org.example.Driver\n")
    given = settings(
        tmp_path,
        METASTORE__URL=URL,
        METASTORE__USER="hive",
        METASTORE__PASSWORD="s3cret",
        METASTORE__JAR="driver.jar",
        SPARK__MASTER="spark://host:7077",
    )
    parts = {name.rpartition("Connection")[2]: value for name, value in metastore._hadoop(given).items()}
    expected = {"URL": URL, "UserName": "hive", "Password": "s3cret", "DriverName": "org.example.Driver"}
    assert expected.items() <= parts.items()
    spark = metastore._with_metastore(given).spark
    assert spark.master == "local[*]" and "s3cret" not in str(spark.conf)
    assert spark.conf["spark.driver.extraClassPath"].endswith(f":{jar}")
    with pytest.raises(UsageFault, match="begins or ends with a blank"):
        metastore._hadoop(settings(tmp_path, METASTORE__PASSWORD="s3cret "))
    with pytest.raises(UsageFault, match="none.jar is not the jar of a JDBC driver"):
        metastore._hadoop(settings(tmp_path, METASTORE__URL=URL, METASTORE__JAR="none.jar"))


def test_an_error_without_a_text_is_called_by_its_kind_and_an_address_is_not_shown(tmp_path: Path) -> None:
    fault = metastore._fault(settings(tmp_path, METASTORE__URL=URL), RuntimeError())
    assert str(fault) == "the metastore of LAKEHOUSE_METASTORE__URL cannot be used: RuntimeError"


def test_what_the_metastores_database_says_is_not_repeated(tmp_path: Path) -> None:
    """Its error may have a value of a row; that nobody answers there is no word of its own."""

    class Cause:
        def __init__(self, state: str | None) -> None:
            self.state = state

        def getCause(self) -> None: ...

        def getMessage(self) -> str:
            return "joao@exemplo.org has no right"

        def getSQLState(self) -> str:
            if self.state is None:
                raise Py4JError("Method getSQLState([]) does not exist")
            return self.state

    def text(state: str | None) -> str:
        error = RuntimeError()
        error.java_exception = Cause(state)  # type: ignore[attr-defined]
        return str(metastore._fault(settings(tmp_path, METASTORE__URL=URL), error))

    assert (
        text("28P01") == "the metastore of LAKEHOUSE_METASTORE__URL cannot be used: its database reports SQLSTATE 28P01"
    )
    assert "has no right" in text("08001") and "has no right" in text(None)
