"""Lakes that ran once and are given out as copies, each with its source as it was after that run."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.lake import run_log
from pipelines.lake.runs import Run
from tests.support.lake import Lake
from tests.support.source import KEYED, execute, fill, fresh_database, query


def copied_files(lake: Lake, folder: Path) -> Lake:
    """A lake of files in another folder, with the files that it was made from."""
    shutil.copytree(lake.folder, folder, dirs_exist_ok=True)
    copied = replace(lake, folder=folder)
    settings = copied.settings()
    _rewritten(settings.bronze_path, lambda run: replace(run, source=str(settings.landing_path / lake.domain)))
    return copied


@dataclass
class Prepared:
    """A lake, and its source, which nobody changes any more."""

    lake: Lake
    server: Postgres

    @contextmanager
    def copied(self, folder: Path, spark: SparkSession | None = None) -> Iterator[Lake]:
        """The lake in a folder of its own, with a source of its own, and with another session when one is given."""
        with fresh_database(self.server, self.lake.address.database) as address:
            shutil.copytree(self.lake.folder, folder, dirs_exist_ok=True)
            lake = Lake(folder, address, spark or self.lake.spark)
            _moved(lake)
            yield lake


def _moved(lake: Lake) -> None:
    """Lets bronze know its source by the number that the copied database has."""
    ((oid,),) = query(lake.address, "SELECT oid::text FROM pg_database WHERE datname = current_database()")

    def moved(run: Run) -> Run:
        tables = (
            replace(table, basis=json.dumps(json.loads(table.basis) | {"database": oid})) if table.basis else table
            for table in run.tables
        )
        return replace(run, source=lake.address.address, tables=tuple(tables))

    _rewritten(lake.settings().bronze_path, moved)


def _rewritten(layer: Path, change: Callable[[Run], Run]) -> None:
    """Records the runs of a layer once more, each with a change."""
    runs = [(run, run_log.read_files(layer, run.domain)) for run in run_log.read_runs(layer)]
    shutil.rmtree(layer / run_log.RUNS)
    for run, files in runs:
        run_log.record(layer, change(run), files=[file for file in files if file.run == run.run])


def prepare(lake: Lake, server: Postgres, scene: Callable[[Lake], None]) -> Prepared:
    """Lets a scene happen to a lake and its database."""
    scene(lake)
    return Prepared(lake, server)


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
