"""How each way is called: its commands, in order, for an empty lake; and where it leaves its tables and its CSV."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.source import Source, home
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
    """One way to the lake and its CSV: `commands` fill the folder `LAKE` of their environment, one after the other."""

    letter: str
    name: str
    commands: tuple[list[str], ...]
    domain: str = ""

    def table(self, lake: Path, layer: str, table: str) -> Path:
        return lake / layer / self.domain / table

    def csv(self, lake: Path) -> list[Path]:
        return sorted((lake / "csv").glob("*.csv"))


def ways() -> tuple[Way, ...]:
    """Ours first, then the rivals."""
    return (
        Way("ours", "make bronze silver gold", ([sys.executable, "-m", "bench.ways.ours", *LAYERS],), "cartoes"),
        Way("E", "plain Spark JDBC, a process a layer", tuple(_submitted("spark_plain.py", layer) for layer in LAYERS)),
        Way("T", "the same, tuned, one process", ([sys.executable, str(WAYS / "spark_tuned.py")],)),
        Way("D", "DuckDB and delta-rs", ([sys.executable, str(WAYS / "duckdb_delta.py"), *LAYERS, "csv"],)),
    )


def environment(source: Source, lake: Path) -> dict[str, str]:
    """What all ways read: the connection and the folder to fill. Nothing else of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEHOUSE_", "PG", "POSTGRES"))}
    kept.pop("DATABASE_URL", None)
    return kept | source.environment | {
        "LAKE": str(lake),
        "LAKEHOUSE_ROOT": str(lake),
        "LAKEHOUSE_EXPORT_PATH": str(lake / "csv"),
        "PYTHONPATH": str(PROJECT),
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "DRIVER_MEMORY": DRIVER_MEMORY,
        "JARS": os.pathsep.join(map(str, sorted((home() / "ivy" / "jars").glob("*.jar")))),
    }


def _submitted(script: str, *words: str) -> list[str]:
    return [
        str(Path(sys.executable).with_name("spark-submit")),
        *("--packages", ",".join(PACKAGES), "--exclude-packages", ",".join(NOT_WANTED)),
        *("--conf", f"spark.jars.ivy={home() / 'ivy'}", "--driver-memory", DRIVER_MEMORY),
        *(str(WAYS / script), *words),
    ]


def fetch() -> None:
    """Lets Spark's resolver fetch the rivals' jars once, so that no round waits for the network."""
    empty = home() / "empty.py"
    empty.write_text("")
    if not any((home() / "ivy" / "jars").glob("*.jar")):
        command = [*_submitted("spark_plain.py")[:-1], str(empty)]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYSPARK_PYTHON": sys.executable})
