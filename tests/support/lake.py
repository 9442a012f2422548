"""A lake below a folder of its own, and what its last runs recorded."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from conf.settings import Postgres, Settings, load
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.lake import delta, run_log, runs
from pipelines.run.layers import RunRequest, run_layers
from pipelines.spark.remote import is_remote
from tests.support import engine

ALL = "associado conta cartao movimento movimento_flat"


@dataclass
class Lake:
    """A fresh lake, filled from `address`, or from files, in this process."""

    folder: Path
    address: Postgres
    spark: SparkSession
    domain: str = "cartoes"

    def settings(self, **given: str) -> Settings:
        """Settings that read this database and write below this folder; given ones by the end of their name."""
        named = {"ROOT": "lake", "EXPORT_PATH": "export", "QUALITY__MAX_QUARANTINED": "1"} | given
        return settings(self.folder, tuple(named.items())).model_copy(update={"postgres": self.address})

    def run(self, *layers: str, full: str = "", again: str = "", **given: str) -> Settings:
        """Runs layers, all of them by default; `full` names tables to build whole, `again` files to replace."""
        settings = self.settings(**given)
        with Report() as report, engine.using(is_remote(self.spark)) if self.spark else nullcontext():
            request = RunRequest(frozenset(layers or LAYERS), (self.domain,), frozenset(full.split()), replace=again)
            run_layers(settings, request, report, self.spark)
        return settings

    def drop(self, name: str, text: str | bytes, at: int | None = None) -> Path:
        """Puts a file into the landing folder, as of a moment."""
        path = self.folder / "landing" / self.domain / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{name}")
        half.write_bytes(text if isinstance(text, bytes) else text.encode())
        if at is not None:
            os.utime(half, (at, at))
        return half.rename(path)

    def last(self, layer: str) -> runs.Run:
        run = run_log.last_run(self.settings().layer_path(layer), self.domain)
        assert run is not None
        return run

    def table(self, layer: str, name: str) -> list[dict[str, Any]]:
        """A table of the last complete run, its rows as dicts, in order of their first column; times without a zone."""
        path, version = self.settings().layer_path(layer) / self.domain / name, self.last(layer).table(name).version
        table = DeltaTable(path, version=version).to_pyarrow_table()
        first = table.column_names[0]
        for at, field in enumerate(table.schema):
            if pa.types.is_timestamp(field.type) and field.type.tz:
                table = table.set_column(at, field.name, table[field.name].cast(pa.timestamp("us")))
        rows: list[dict[str, Any]] = table.take(pc.sort_indices(table, [(first, "ascending", "at_start")])).to_pylist()
        return rows

    def log_texts(self) -> list[str]:
        """Each commit of each table, with its statistics."""
        return [path.read_text("utf-8") for path in (self.folder / "lake").rglob("*.json")]

    @property
    def csv(self) -> bytes:
        return (self.folder / "export" / "movimento_flat.csv").read_bytes()


@cache
def settings(folder: Path, named: tuple[tuple[str, str], ...]) -> Settings:
    return load({f"LAKEHOUSE_{name}": value for name, value in named}, base=folder)[0]


# A domain of files asks no server.
NOWHERE = Postgres(host="/nowhere", database="none", user="nobody")


Rows = Callable[..., DataFrame]


def last(lakehouse: Lake, layer: str) -> runs.Run:
    run = run_log.last_run(lakehouse.settings().layer_path(layer), "cartoes")
    assert run is not None
    return run


def changed(lakehouse: Lake, layer: str) -> dict[str, str]:
    return {table.name: table.how for table in last(lakehouse, layer).tables if table.how != "unchanged"}


def versions(lakehouse: Lake) -> dict[str, int | None]:
    settings = lakehouse.settings()
    return {
        f"{layer}.{table.name}": delta.version(settings.layer_path(layer) / "cartoes" / table.name)
        for layer in LAYERS
        for table in last(lakehouse, layer).tables
    }
