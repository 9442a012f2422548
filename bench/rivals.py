"""How each way is called: its commands, in order, for an empty lake; and where it leaves its tables and its CSV."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.source import Source
from conf.settings import PROJECT

DELTA, JDBC = "4.4.0", "org.postgresql:postgresql:42.7.7"
PACKAGES = [
    *(f"io.delta:{name}:{DELTA}" for name in ("delta-spark_4.2_2.13", "delta-storage")),
    *(f"io.delta:{name}:{DELTA}" for name in ("delta-kernel-api", "delta-kernel-defaults")),
    JDBC,
]
# Spark has its own; what is left of org.* is PostgreSQL's driver.
NOT_WANTED = [f"org.{letter}*:*" for letter in "acfjorsw"] + ["com.*:*", "commons-*:*", "javax.*:*"]
NOT_WANTED += ["io.unitycatalog:*", "io.airlift:*", "io.delta:delta-kernel-unitycatalog"]
DRIVER_MEMORY = "2g"
WAYS = Path(__file__).with_name("ways")
LAYERS = ("bronze", "silver", "gold")


@dataclass(frozen=True)
class Way:
    """One way to the lake and its CSV: `commands` fill the folder `LAKE` of their environment, one after the other;
    `beside` are measured on the lake that is full, and are no part of the whole."""

    letter: str
    commands: tuple[list[str], ...]
    layers: tuple[str, ...] = LAYERS
    domain: str = ""
    beside: tuple[list[str], ...] = ()

    def table(self, lake: Path, layer: str, table: str) -> Path:
        return lake / layer / self.domain / table


def ways(folder: Path) -> tuple[Way, ...]:
    """Ours first, then the rivals, then the floors. `folder` has the rivals' jars."""
    plain = tuple(_submitted(folder, WAYS / "spark_plain.py", layer) for layer in LAYERS)
    beside = (_python("ours", "csv"), _python("floors", "same_files"), _python("ours", "bronze_alone"))
    return (
        Way("ours", (_python("ours", *LAYERS),), domain="cartoes", beside=beside),
        Way("E", plain),
        Way("T", (_python("spark_tuned"),)),
        Way("D", (_python("duckdb_delta", *LAYERS, "csv"),)),
        Way("F", (_python("floors", "copy", "parquet", "join_csv"),), layers=()),
    )


def environment(source: Source, lake: Path, folder: Path) -> dict[str, str]:
    """What all ways read: the connection and the folder to fill. Nothing else of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "PG", "POSTGRES"))}
    kept.pop("DATABASE_URL", None)
    return (
        kept
        | source.environment
        | {
            "LAKE": str(lake),
            "LAKEHOUSE_ROOT": str(lake),
            "LAKEHOUSE_EXPORT_PATH": str(lake / "csv"),
            "PYTHONPATH": str(PROJECT),
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
            "DRIVER_MEMORY": DRIVER_MEMORY,
            "JARS": os.pathsep.join(map(str, sorted((folder / "ivy" / "jars").glob("*.jar")))),
        }
    )


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"bench.ways.{module}", *words]


def _submitted(folder: Path, script: Path, *words: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("spark-submit")),
        *("--packages", ",".join(PACKAGES), "--exclude-packages", ",".join(NOT_WANTED)),
        *("--conf", f"spark.jars.ivy={folder / 'ivy'}", "--driver-memory", DRIVER_MEMORY),
        *(str(script), *words),
    ]


def fetch(folder: Path) -> None:
    """Lets Spark's resolver fetch the rivals' jars once, so that no round waits for the network."""
    if not any((folder / "ivy" / "jars").glob("*.jar")):
        empty = folder / "empty.py"
        empty.write_text("")
        environment = os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
        subprocess.run(_submitted(folder, empty), check=True, capture_output=True, env=environment)
