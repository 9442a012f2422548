"""A stream of condominium files, and the batch load that it is compared with."""

import shutil
from pathlib import Path

from pipelines.lake import run_log
from tests.support.lake import NOWHERE, Lake

ENV = {"LAKEHOUSE_CALL__DOMAIN": "condominio", "LAKEHOUSE_STREAM__MAX_FILES_PER_TRIGGER": "3"}


def batch(lakehouse: Lake, folder: Path, *layers: str) -> Lake:
    """A lake that took the same files in one run of layers, of all by default."""
    whole = Lake(folder, NOWHERE, lakehouse.spark, "condominio")
    shutil.copytree(lakehouse.folder / "landing", folder / "landing")
    whole.run(*layers)
    return whole


def taken_once(lakehouse: Lake) -> bool:
    names = [file.name for file in run_log.read_files(lakehouse.settings().bronze_path, "condominio")]
    return len(names) == len(set(names))
