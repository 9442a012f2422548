"""What a worker of a cluster must have, looked at in its Python. Sent there as it is: no import of ours."""

import importlib
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

SECONDS = 10


MARK = "driver"


@dataclass(frozen=True)
class WorkerNeeds:
    """What a worker should have: packages by version, our sources by fingerprint, folders that the driver sees, too,
    and a way to the source's host and port, or socket."""

    packages: dict[str, str]
    software: str
    folders: tuple[str, ...]
    source: tuple[str, int] | None


def missing_on_worker(asked: WorkerNeeds) -> tuple[str, list[str]]:
    """The worker's name, and each thing that it lacks, as the end of a sentence."""
    return socket.gethostname(), [*_packages(asked), *_folders(asked), *_source(asked)]


def _packages(asked: WorkerNeeds) -> list[str]:
    for name, wanted in asked.packages.items():
        try:
            found = importlib.import_module("pyspark").__version__ if name == "pyspark" else version(name)
        except ImportError:
            return [_lacks(name)]
        if found != wanted:
            return [f"has {name} {found}, the driver {wanted}: install requirements/run.txt in {sys.executable}"]
    try:
        software = importlib.import_module("pipelines.core.identity").software("")
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("pipelines", "conf"):
            return ["does not have this project: put it there into the same folder as here"]
        return [_lacks(error.name or "a package")]
    return [] if software == asked.software else ["has another version of this project: bring it up to date"]


def _lacks(name: str) -> str:
    return f"its Python, {sys.executable}, lacks {name}: install requirements/run.txt there"


def _folders(asked: WorkerNeeds) -> list[str]:
    lacking = []
    for folder in map(Path, asked.folders):
        shown = folder.parent
        try:
            if not (folder / MARK).exists():
                lacking.append(f"does not see the driver's {shown}: share that folder with all workers")
            else:
                (folder / socket.gethostname()).touch()
        except OSError:
            lacking.append(f"may not write to {shown}: let its executors run as the user who owns it")
    return lacking


def _source(asked: WorkerNeeds) -> list[str]:
    if asked.source is None:
        return []
    host, port = asked.source
    try:
        if host.startswith("/"):
            with socket.socket(socket.AF_UNIX) as end:
                end.connect(f"{host}/.s.PGSQL.{port}")
        else:
            socket.create_connection((host, port), SECONDS).close()
    except OSError:
        return [f"cannot reach PostgreSQL at {host}:{port}: open the way from each worker to it"]
    return []
