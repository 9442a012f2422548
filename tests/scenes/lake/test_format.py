"""A lake that newer software recorded runs in is refused, whatever is asked of it, before anything is written."""

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.core.names import LAYERS
from pipelines.lake import delta, run_log
from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.process import connection_settings

READING = ("status", "quality", "history", "plan", "reconcile", "export", "answers", "shell", "catalog")
WRITING = (
    ("bronze", "silver", "gold"),
    ("bronze",),
    ("gold",),
    ("maintain",),
    ("restore", "--run", "gold/1"),
    ("stream", "--domain", "condominio", "--once"),
)


def raise_format(table: Path) -> None:
    """Writes the commit by which newer software would say its format."""
    deltas = DeltaTable(table)
    metadata = deltas.metadata()
    action = {
        "id": metadata.id,
        "name": metadata.name,
        "description": metadata.description,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": deltas.schema().to_json(),
        "partitionColumns": [],
        "configuration": metadata.configuration | {run_log.FORMAT_PROPERTY: str(run_log.FORMAT + 1)},
    }
    (table / delta.LOG / f"{deltas.version() + 1:020d}.json").write_text(json.dumps({"metaData": action}) + "\n")


def everything_in(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {
        str(path): ((stat := path.stat()).st_mode, stat.st_size if path.is_file() else 0, stat.st_mtime_ns)
        for path in folder.rglob("*")
    }


def refusal(table: Path) -> str:
    newer = f"newer software recorded runs here, in format {run_log.FORMAT + 1}"
    return f"storage: table {table}: {newer}; this software knows formats up to {run_log.FORMAT}: update it\n"


def test_every_command_refuses_the_runs_of_newer_software_in_one_line_and_writes_nothing(
    cli: CliHere, nights_lake: Lake
) -> None:
    settings, given = nights_lake.settings(), connection_settings(nights_lake.address)
    (nights_lake.folder / "landing/condominio").mkdir(parents=True)
    for layer in LAYERS:
        raise_format(settings.layer_path(layer) / run_log.RUNS)
        (settings.layer_path(layer) / ".lock").unlink()
    scratch = settings.silver_path / ".run.1.x"
    scratch.mkdir()
    before = everything_in(nights_lake.folder)
    tables = [settings.layer_path(layer) / run_log.RUNS for layer in LAYERS]
    for words in (*((word,) for word in READING), *WRITING):
        result = cli(*words, env=given)
        assert (result.returncode, result.stdout) == (5, ""), words
        assert result.stderr in map(refusal, tables), words
        assert everything_in(nights_lake.folder) == before, words


@pytest.mark.parametrize("layer, name", [("gold", run_log.RUNS), ("silver", run_log.QUALITY)])
def test_a_table_of_newer_software_anywhere_in_the_lake_keeps_runs_from_writing(
    cli: CliHere, nights_lake: Lake, layer: str, name: str
) -> None:
    table = nights_lake.settings().layer_path(layer) / name
    raise_format(table)
    before = everything_in(nights_lake.folder)
    for words in WRITING[1:5]:
        result = cli(*words, env=connection_settings(nights_lake.address))
        assert (result.returncode, result.stderr) == (5, refusal(table)), words
        assert everything_in(nights_lake.folder) == before, words


def test_a_newer_lake_can_be_deleted(cli: CliHere, nights_lake: Lake) -> None:
    for layer in LAYERS:
        raise_format(nights_lake.settings().layer_path(layer) / run_log.RUNS)
    assert cli("reset", stdin="yes\n").returncode == 0
    assert not (nights_lake.folder / "lake").exists()
