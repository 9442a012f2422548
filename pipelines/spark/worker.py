"""What a worker of a cluster must have, checked in its own Python: sent there, so it imports nothing of ours."""

import importlib
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

CONNECT_SECONDS = 10

DRIVER_MARK = "driver"


@dataclass(frozen=True)
class WorkerNeeds:
    """What a worker must have: packages in these versions, this software (its fingerprint), the folders that the driver
    sees, and a way to the source's host and port, or socket."""

    packages: dict[str, str]
    software: str
    folders: tuple[str, ...]
    source: tuple[str, int] | None


def missing_on_worker(needs: WorkerNeeds) -> tuple[str, list[str]]:
    """The worker's name, and each thing that it lacks, as the end of a sentence."""
    return socket.gethostname(), [*_packages(needs), *_folders(needs), *_source(needs)]


def _packages(needs: WorkerNeeds) -> list[str]:
    for name, wanted in needs.packages.items():
        try:
            installed = importlib.import_module("pyspark").__version__ if name == "pyspark" else version(name)
        except ImportError:
            return [_lacks(name)]
        if installed != wanted:
            return [f"has {name} {installed}, the driver {wanted}: install requirements/run.txt in {sys.executable}"]
    try:
        if importlib.import_module("pipelines.core.identity").software("") != needs.software:
            return ["has another version of this project: bring it up to date"]
        importlib.import_module("pipelines.sources.postgres.reader")  # which imports all that executors work with
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("pipelines", "conf"):
            return ["does not have this project: put it there into the same folder as here"]
        return [_lacks(error.name or "a package")]
    return []


def _lacks(name: str) -> str:
    return f"its Python, {sys.executable}, lacks {name}: install requirements/run.txt there"


def _folders(needs: WorkerNeeds) -> list[str]:
    lacking = []
    for folder in map(Path, needs.folders):
        shown = folder.parent
        try:
            if not (folder / DRIVER_MARK).exists():
                lacking.append(f"does not see the driver's {shown}: share that folder with all workers")
            else:
                (folder / socket.gethostname()).touch()
        except OSError:
            lacking.append(f"may not write to {shown}: let its executors run as the user who owns it")
    return lacking


def _source(needs: WorkerNeeds) -> list[str]:
    if needs.source is None:
        return []
    host, port = needs.source
    try:
        if host.startswith("/"):
            with socket.socket(socket.AF_UNIX) as end:
                end.connect(f"{host}/.s.PGSQL.{port}")
        else:
            socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError:
        return [f"cannot reach PostgreSQL at {host}:{port}: open the way from each worker to it"]
    return []
