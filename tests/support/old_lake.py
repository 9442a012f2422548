"""Small lakes as files, each made by the software of its time: `python -m tests.support.old_lake FILE [CHECKOUT...]`.

FILE is a .tar.xz with the lake, its CSV and its landing folder. CHECKOUT is the folder of the software that makes it,
by its own command line; this one by default. Of several, each makes a night, the last all that are left. The source of
every lake is the same.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from conf.settings import PROJECT, Postgres
from pipelines.core.names import LAYERS
from pipelines.lake.folders import CSV_LOCK, LOCK
from pipelines.sources.postgres import embedded
from tests.support.condominio import PARENTS, SALES
from tests.support.folders import server_home
from tests.support.process import clean_environment
from tests.support.source import execute, fresh_database

# What happens at the source before each night: statements, and files that arrive. Movements 41 and 43 have no card, two
# lines of sales are no rows; before the last night nothing happens.
NIGHTS: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    (
        (
            "CREATE TABLE associado (id bigint PRIMARY KEY, nome text, sobrenome text, idade int, email text)",
            "CREATE TABLE conta (id bigint PRIMARY KEY, tipo text, data_criacao timestamp, id_associado bigint)",
            """CREATE TABLE cartao (id bigint PRIMARY KEY, num_cartao text, nom_impresso text, data_criacao timestamp,
            id_conta bigint, id_associado bigint)""",
            """CREATE TABLE movimento (id bigint PRIMARY KEY, vlr_transacao numeric(10,2), des_transacao text,
            data_movimento timestamp, id_cartao bigint)""",
            """INSERT INTO associado SELECT i, 'Ana ' || i, 'Souza', 20 + i, 'ana' || i || '@example.org'
            FROM generate_series(1, 4) i""",
            "INSERT INTO conta SELECT i, 'corrente', '2020-01-01', i FROM generate_series(1, 4) i",
            "INSERT INTO cartao SELECT i, '411111111111111' || i, 'ANA', '2020-01-02', i, i FROM generate_series(1, 4) i",
            """INSERT INTO movimento SELECT i, i + 0.25, 'compra ' || i, timestamp '2024-01-01' + i * interval '1 hour',
            1 + i % 4 FROM generate_series(1, 40) i""",
            "INSERT INTO movimento VALUES (41, 1, 'sem cartao', '2024-01-01', 99)",
        ),
        PARENTS | {"transacoes.csv": f"{SALES}1,1,2024-03-01,10.00\n2,2,2024-03-01,20.50\nx,1,2024-03-01,5.00\n"},
    ),
    (
        ("UPDATE associado SET nome = 'Bia' WHERE id = 2", "DELETE FROM movimento WHERE id = 7"),
        {"transacoes_2.csv": f"{SALES}1,2,2024-03-05,7.25\n"},
    ),
    (
        (
            "UPDATE associado SET nome = 'Bela' WHERE id = 2",
            "UPDATE conta SET tipo = 'poupança' WHERE id = 3",
            "INSERT INTO movimento VALUES (42, 4.5, 'tarde', '2024-02-01', 1), (43, 1, 'sem cartao', '2024-02-01', 98)",
        ),
        {"transacoes_3.csv": f"{SALES}2,1,2024-03-07,9.00\n2,1\n"},
    ),
    ((), {}),
)

# For a few rows in one partition.
SPARK = {
    "spark.driver.defaultJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "1",
    "spark.databricks.delta.snapshotPartitions": "1",
}


def fill(address: Postgres) -> None:
    """Makes a database what the source of every lake was in the end."""
    execute(address, *(statement for statements, _ in NIGHTS for statement in statements))


def unpack(file: Path, folder: Path) -> None:
    """Puts a lake into a folder."""
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    for layer in LAYERS:
        (folder / "lake" / layer / LOCK).touch()


def make(file: Path, *software: Path) -> None:
    """Lets the software in one or more folders run the nights, then packs what it made."""
    with tempfile.TemporaryDirectory() as made, server_home() as home, embedded.server(home) as server:
        folder, landing = Path(made), Path(made, "landing", "condominio")
        landing.mkdir(parents=True)
        with fresh_database(server) as address:
            for night, (statements, files) in enumerate(NIGHTS):
                execute(address, *statements)
                for number, (name, text) in enumerate(files.items()):
                    (landing / name).write_text(text, encoding="utf-8")
                    os.utime(landing / name, (moment := 10 * night + number, moment))
                code = _run(folder, software[min(night, len(software) - 1)], address)
                print(f"night {night + 1}: exit code {code}", flush=True)
        with tarfile.open(file, "w:xz", preset=9) as archive:
            for name in ("lake", "export", "landing"):
                archive.add(folder / name, name, filter=_nameless)


def _run(folder: Path, software: Path, address: Postgres) -> int:
    """One night: all layers of all domains, by the software's command line."""
    settings = {
        "ROOT": "lake",
        "EXPORT_PATH": "export",
        "LANDING_PATH": "landing",
        "QUALITY__MAX_QUARANTINED": "1",
        "POSTGRES__HOST": address.host,
        "POSTGRES__PORT": str(address.port),
        "POSTGRES__DATABASE": address.database,
        "POSTGRES__USER": address.user,
        "SPARK__CONF": json.dumps(SPARK),
    }
    given = {f"LAKEHOUSE_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "pipelines", "bronze", "silver", "gold"]
    environment = clean_environment(folder) | given | {"PYTHONPATH": str(software)}
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def _nameless(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """An entry without who made it; no locks."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if Path(entry.name).name in (LOCK, CSV_LOCK) else entry


if __name__ == "__main__":
    make(*(Path(name).resolve() for name in sys.argv[1:]), *([PROJECT] if len(sys.argv) == 2 else []))
