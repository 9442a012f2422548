"""`make doctor`: whether this machine, its folders and the source have what a run needs. It changes nothing."""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from conf import machine
from conf.connection import SCHEMA
from conf.settings import PROJECT, Postgres, Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import Fault
from pipelines.core.names import LAYERS
from pipelines.lake import folders
from pipelines.sources.domains import landing_of
from pipelines.sources.postgres import embedded
from pipelines.sources.postgres.snapshot import describe, take_snapshot
from pipelines.spark import class_data_archive, cluster
from pipelines.spark.session import LOOPBACK

PYTHON_BYTES = 2**30  # that a run takes beside the JVM
DISK_BYTES = 2 * 2**30  # below which a disk counts as nearly full
MODE_OPEN = 0o022  # a folder that others may write to


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was seen, and how to mend it; without a mend it is ok."""

    name: str
    seen: str
    mend: str = ""


def doctor(settings: Settings, report: Report) -> bool:
    """Prints a line for each thing that a run needs, with the mend when it lacks. Returns whether nothing lacks."""
    healthy = True
    for check in CHECKS:
        for finding in check(settings):
            healthy = healthy and not finding.mend
            texts = "; ".join(filter(None, (finding.seen, finding.mend)))
            report.say(f"{'lacks' if finding.mend else 'ok':<6} {finding.name}: {texts}")
    return healthy


def packages(_: Settings) -> Iterator[Finding]:
    """What set-up leaves behind; the jars as they are now, byte for byte."""
    lines = (PROJECT / "requirements/jars.sha256").read_text("utf-8").splitlines()
    pinned = {name: checksum for checksum, name in map(str.split, lines)}
    jars = {jar.name: folders.sha256(jar) for jar in class_data_archive.JARS.glob("*.jar")}
    wrong = sorted(name for name in pinned.keys() | jars if pinned.get(name) != jars.get(name))
    mend = f"{', '.join(wrong)}: not what requirements/jars.sha256 says; remove .jars, then run `make setup`"
    yield Finding("jars", f"{len(jars)} of Delta", "run `make setup`" if not jars else mend if wrong else "")
    archived = class_data_archive.archive() is not None
    slow = "none for this Java and these jars: Spark starts some seconds later; `make setup` makes it"
    yield Finding("class-data archive", "there" if archived else slow)


def tables(_: Settings) -> Iterator[Finding]:
    """Whether the tables' files are what they must be."""
    for layer in LAYERS:
        try:
            yield Finding(f"tables of {layer}", f"{len(catalogue.entries(layer))} declared")
        except Fault as fault:
            yield Finding(f"tables of {layer}", "", str(fault))


def memory(settings: Settings) -> Iterator[Finding]:
    """Free memory, as far as a container may take it, for Spark's JVM and what Python takes beside it."""
    free = min(psutil.virtual_memory().available, machine.memory_bytes())
    wanted = settings.spark.driver_bytes + PYTHON_BYTES
    mend = f"a run may take {_size(wanted)}: free some, or lower LAKEHOUSE_SPARK__DRIVER_MEMORY"
    yield Finding("memory", f"{_size(free)} free", mend if free < wanted else "")


def disk(settings: Settings) -> Iterator[Finding]:
    """Free space where the lake, the CSV and Spark's temporary files go; each disk once."""
    seen = set[int]()
    for path in (*map(settings.layer_path, LAYERS), settings.export_path, Path(tempfile.gettempdir())):
        folder = _existing(path)
        if (device := folder.stat().st_dev) not in seen:
            seen.add(device)
            free = shutil.disk_usage(folder).free
            mend = "" if free >= DISK_BYTES else "make room: `make maintain` removes what no kept run needs"
            yield Finding(f"disk of {folder}", f"{_size(free)} free", mend)


def locale(_: Settings) -> Iterator[Finding]:
    """The encoding of names of files and of the terminal."""
    encodings = {sys.getfilesystemencoding(), sys.stdout.encoding or "utf-8"}
    wrong = sorted(name for name in encodings if name.lower().replace("-", "") != "utf8")
    yield Finding("locale", ", ".join(wrong or ["UTF-8"]), "set LC_ALL=C.UTF-8" if wrong else "")


def rights(settings: Settings) -> Iterator[Finding]:
    """Whether we may write where a run writes, and nobody else may."""
    named = {f"LAKEHOUSE_{layer.upper()}_PATH": settings.layer_path(layer) for layer in LAYERS}
    for name, path in (named | {"LAKEHOUSE_EXPORT_PATH": settings.export_path}).items():
        folder = _existing(path)
        mend = ""
        if not os.access(folder, os.W_OK | os.X_OK):
            mend = f"let this user write to {folder}, or correct {name}"
        elif path.exists() and path.stat().st_mode & MODE_OPEN:
            mend = f"others may write to it: chmod go-w {path}"
        yield Finding(f"rights to {path}", "" if mend else "writable", mend)


def source(settings: Settings) -> Iterator[Finding]:
    """Whether each domain's source answers and has its tables."""
    for domain in catalogue.domains():
        tables = [table.name for table in catalogue.tables_of("bronze", domain)]
        if place := landing_of(settings, domain):
            files = sum(1 for file in place.rglob("*") if file.is_file()) if place.is_dir() else 0
            yield Finding(f"source of {domain}", f"{place}: {files} files")
        elif settings.postgres is None:
            seeded = "seeded" if embedded.home().exists() else "empty: `make seed` fills it"
            yield Finding(f"source of {domain}", f"the embedded PostgreSQL, {seeded}")
        else:
            yield from _of_server(settings, settings.postgres, domain, tables)


def _of_server(settings: Settings, server: Postgres, domain: str, tables: list[str]) -> Iterator[Finding]:
    name, address = f"source of {domain}", server.address
    try:
        with take_snapshot(server, settings.schema_name, tables) as snapshot:
            relations = [describe(snapshot, table) for table in tables]
    except Fault as fault:
        yield Finding(name, address, str(fault))
        return
    readable = [relation and any(column.readable for column in relation.columns) for relation in relations]
    missing = [table for table, is_readable in zip(tables, readable, strict=True) if not is_readable]
    lacks = f"no {', '.join(missing)} in schema {settings.schema_name}: correct {SCHEMA} or the role's rights"
    yield Finding(name, f"{address}: {len(tables) - len(missing)} of {len(tables)} tables", lacks if missing else "")


def port(settings: Settings) -> Iterator[Finding]:
    """Whether Spark can talk to itself on this machine, or its cluster answers."""
    try:
        if settings.spark.is_local:
            with socket.create_server((LOOPBACK, 0)) as server, socket.create_connection(server.getsockname(), 2):
                yield Finding("port", f"{LOOPBACK} answers")
        else:
            cluster.require_answer(settings.spark.master)
            yield Finding("port", f"{settings.spark.master} answers")
    except OSError as error:
        mend = "let programs talk to each other on loopback: ip link set lo up"
        yield Finding("port", f"{LOOPBACK}: {error.strerror}", mend)
    except Fault as fault:
        yield Finding("port", "", str(fault))


CHECKS = (packages, tables, memory, disk, locale, rights, source, port)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB"
