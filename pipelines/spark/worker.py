"""What a worker of a cluster must have, checked in its own Python: sent there, so it imports nothing of ours."""

import importlib
import socket
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

CONNECT_SECONDS = 10

DRIVER_MARK = "driver"


def missing_on_worker(
    packages: dict[str, str], software: str, folders: tuple[str, ...], source: tuple[str, int | str] | None
) -> tuple[str, list[str]]:
    """The worker's name, and each thing that it lacks, as the end of a sentence: packages in these versions, this
    software (its fingerprint), the folders that the driver sees, a way to one of the source's hosts, or sockets."""
    return socket.gethostname(), [
        *_packages(packages, software),
        *_folders(folders),
        *(_source(*source) if source else ()),
    ]


def _packages(packages: dict[str, str], software: str) -> list[str]:
    for name, wanted in packages.items():
        try:
            installed = importlib.import_module("pyspark").__version__ if name == "pyspark" else version(name)
        except ImportError:
            return [_lacks(name)]
        if installed != wanted:
            return [f"has {name} {installed}, the driver {wanted}: install requirements/run.txt in {sys.executable}"]
    try:
        if importlib.import_module("pipelines.core.identity").software("") != software:
            return ["has another version of this project: bring it up to date"]
        importlib.import_module("pipelines.sources.postgres.reader")  # which imports all that executors work with
    except ImportError as error:
        if (error.name or "").split(".")[0] in ("pipelines", "conf"):
            return ["does not have this project: put it there into the same folder as here"]
        return [_lacks(error.name or "a package")]
    return []


def _lacks(name: str) -> str:
    return f"its Python, {sys.executable}, lacks {name}: install requirements/run.txt there"


def _folders(folders: tuple[str, ...]) -> list[str]:
    lacking = []
    for folder in map(Path, folders):
        shown = folder.parent
        try:
            if not (folder / DRIVER_MARK).exists():
                lacking.append(f"does not see the driver's {shown}: share that folder with all workers")
            else:
                (folder / socket.gethostname()).touch()
        except OSError:
            lacking.append(f"may not write to {shown}: let its executors run as the user who owns it")
    return lacking


def _source(host: str, port: int | str) -> list[str]:
    hosts, ports = host.split(","), str(port).split(",")
    for each, its_port in zip(hosts, ports * (len(hosts) // len(ports)), strict=True):
        with suppress(OSError):
            if each.startswith("/"):
                with socket.socket(socket.AF_UNIX) as end:
                    end.connect(f"{each}/.s.PGSQL.{its_port}")
            else:
                socket.create_connection((each, int(its_port)), CONNECT_SECONDS).close()
            return []
    return [f"cannot reach PostgreSQL at {host}:{port}: open the way from each worker to it"]
