"""A session whose catalogue is a Hive metastore, and the file with which another Spark has the same one."""

import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import Fault, LockedFault, StorageFault, UsageFault
from pipelines.lake import durable, folders
from pipelines.spark.class_data_archive import JARS
from pipelines.spark.session import DEFAULTS, compiling_less, configuration, session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


DERBY = "metastore_db"  # the embedded metastore, in the catalogue's folder
ESCAPED = re.compile(r"[\\\x00-\x1f]|^[ =:]")  # in a value of a file of Java's properties


@contextmanager
def session_with_metastore(settings: Settings, rows: int, report: Report) -> Iterator["SparkSession"]:
    """A session with the names of the metastore, for about so many rows; writes the file, too. Raises LockedFault,
    StorageFault or UsageFault if the metastore cannot be used."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    settings = compiling_less(_with_metastore(settings), rows)
    hadoop, folder = _hadoop(settings), settings.catalog_path
    properties = configuration(settings) | {f"spark.hadoop.{name}": value for name, value in hadoop.items()}
    _write(folder, properties)
    with ExitStack() as stack:
        with report.waiting("spark", "start"):
            spark = stack.enter_context(session(settings))
        for name, value in hadoop.items():  # not on the command line of the JVM: one is a password
            spark.sparkContext._jsc.hadoopConfiguration().set(name, value)
        try:
            yield spark
        except (PySparkException, Py4JError) as error:
            raise _fault(settings, error) from error


def _with_metastore(settings: Settings) -> Settings:
    """Settings of a session here, not on a cluster, whose catalogue is the metastore."""
    home = shlex.quote(f"-Dderby.system.home={settings.catalog_path}")  # the embedded metastore and its log lie there
    conf = settings.spark.conf | {
        "spark.sql.catalogImplementation": "hive",
        "spark.sql.warehouse.dir": str(settings.catalog_path / "warehouse"),
        DEFAULTS: " ".join(filter(None, (settings.spark.conf.get(DEFAULTS), home))),
    }
    if settings.metastore.jar:
        jars = (*sorted(JARS.glob("*.jar")), _absolute(settings, settings.metastore.jar))
        conf["spark.driver.extraClassPath"] = os.pathsep.join(map(str, jars))
    master = settings.spark.master if settings.spark.is_local else "local[*]"
    return settings.model_copy(update={"spark": settings.spark.model_copy(update={"conf": conf, "master": master})})


def _hadoop(settings: Settings) -> dict[str, str]:
    """What Hive needs to know of the metastore. Raises UsageFault if the driver's jar is none, or Spark's file of
    properties would not keep the password."""
    given, folder = settings.metastore, settings.catalog_path
    if given.password and given.password.get_secret_value() != given.password.get_secret_value().strip():
        raise UsageFault("LAKEHOUSE_METASTORE__PASSWORD begins or ends with a blank, which Spark takes away")
    connection = {
        "URL": given.url or f"jdbc:derby:;databaseName={DERBY};create=true",
        "UserName": given.user,
        "Password": given.password.get_secret_value() if given.password else None,
        "DriverName": _driver(_absolute(settings, given.jar)) if given.jar else None,
    }
    named = {f"javax.jdo.option.Connection{name}": value for name, value in connection.items() if value}
    return named | {"hive.downloaded.resources.dir": str(folder / "resources"), "hive.hmshandler.retry.attempts": "1"}


def _absolute(settings: Settings, file: Path) -> Path:
    return settings.base / file.expanduser()


def _driver(jar: Path) -> str:
    """The class of the JDBC driver in a jar."""
    try:
        with zipfile.ZipFile(jar) as files:
            return files.read("META-INF/services/java.sql.Driver").decode().split()[0]
    except (OSError, zipfile.BadZipFile, KeyError, IndexError) as error:
        raise UsageFault(f"LAKEHOUSE_METASTORE__JAR: {jar} is not the jar of a JDBC driver") from error


def _write(folder: Path, properties: dict[str, str]) -> None:
    """Writes Spark's properties for their owner only, one may be a password. Raises StorageFault if the folder is not
    ours."""
    file = folder / folders.SPARK_CONF
    is_ours = folders.is_catalogue(folder)
    lines = {name: f"{name} {re.sub(ESCAPED, _escape, value)}" for name, value in properties.items()}
    with folders.storage(f"folder {folder}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_ours and any(not path.name.startswith(f".{folders.SPARK_CONF}.") for path in folder.iterdir()):
            raise StorageFault(f"folder {folder} holds other files; name an empty one in LAKEHOUSE_CATALOG_PATH")
        folder.chmod(0o700)
        if is_ours and lines["spark.sql.warehouse.dir"] not in file.read_text("utf-8").splitlines():
            shutil.rmtree(folder / DERBY, ignore_errors=True)  # the lake was moved; Hive cannot move its databases
        with folders.beside(file) as half:
            half.touch(mode=0o600)
            durable.write(half, "\n".join([folders.BY_CATALOG, *lines.values(), ""]).encode())
            durable.rename(half, file)


def _escape(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def _fault(settings: Settings, error: Exception) -> Fault:
    """What is wrong with the metastore, as the last cause says it; of what its database says, the SQLSTATE."""
    from py4j.protocol import Py4JError

    cause: Any = getattr(error, "_origin", None) or getattr(error, "java_exception", None)
    while cause and cause.getCause():
        cause = cause.getCause()
    message = (cause.getMessage() or cause.getClass().getName()) if cause else str(error) or type(error).__name__
    text = message.splitlines()[0]
    folder = settings.catalog_path
    if settings.metastore.url:
        with suppress(Py4JError):  # not an exception of a JDBC driver
            if cause and (state := cause.getSQLState()) and not state.startswith("08"):
                text = f"its database reports SQLSTATE {state}"
        return UsageFault(f"the metastore of LAKEHOUSE_METASTORE__URL cannot be used: {text}")
    if "Another instance of Derby" in text:
        return LockedFault(
            f"another process, such as spark-sql, has the catalogue in {folder} open; leave it, then try again"
        )
    return StorageFault(f"the catalogue in {folder} cannot be used: {text}; delete that folder, then try again")
