"""Lakes that ran once and are given out as copies, each with its source as it was after that run."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conf.settings import Postgres
from tests.support.lake import Lake
from tests.support.source import KEYED, connected, execute, fill, query


@dataclass
class Prepared:
    """A lake, and its source as a template; `oid` is the database's, by which bronze knows it again."""

    lake: Lake
    server: Postgres
    oid: int

    def copy(self, folder: Path) -> Lake:
        """The lake in a folder of its own, on its source as it then was. One copy is used at a time."""
        name = self.lake.address.database
        with connected(self.server) as admin, admin.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {name}_template OID = {self.oid}")
        shutil.copytree(self.lake.folder, folder, dirs_exist_ok=True)
        return Lake(folder, self.lake.address, self.lake.spark)


def prepare(lake: Lake, server: Postgres, scene: Callable[[Lake], None]) -> Prepared:
    """Lets a scene happen to a lake and its database, and keeps what it left."""
    scene(lake)
    name = lake.address.database
    ((oid,),) = query(lake.address, "SELECT oid FROM pg_database WHERE datname = current_database()")
    with connected(server) as admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}_template TEMPLATE {name}")
    return Prepared(lake, server, oid)


def keyed(lake: Lake) -> None:
    """20 members with an account and a card each, 200 movements; all layers ran once."""
    execute(lake.address, *KEYED)
    lake.run()


def nasty(lake: Lake) -> None:
    """Nasty rows in tables without keys; all layers ran once."""
    fill(lake)
    lake.run()


# What the source is in the second night and in the third.
NIGHTS = (
    """INSERT INTO movimento VALUES (50, 1, 'segunda', '2024-01-01', 1), (51, 1, 'x', '2024-01-01', 999);
    UPDATE conta SET tipo = 'nova' WHERE id = 1""",
    """DELETE FROM movimento WHERE id IN (50, 51); UPDATE associado SET nome = 'Terceira' WHERE id = 1;
    UPDATE conta SET tipo = 'outra' WHERE id = 1""",
)


def nights(lake: Lake) -> None:
    """Three nights of the nasty rows; the CSV of each lies beside the lake."""
    fill(lake)
    for night, change in enumerate(("SELECT 1", *NIGHTS), 1):
        execute(lake.address, change)
        lake.run()
        (lake.folder / f"{night}.csv").write_bytes(lake.csv)


SCENES = {"keyed": keyed, "nasty": nasty, "nights": nights}
