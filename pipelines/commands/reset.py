"""`make reset`: deletes what the pipeline made, after asking."""

import shutil
import sys
from pathlib import Path

from conf.settings import Settings
from pipelines.commands.maintain import remove, temporary
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.lake import folders as lake_folders
from pipelines.lake import run_log
from pipelines.sources.postgres import embedded


def reset(settings: Settings, report: Report) -> None:
    """Deletes each layer, the CSVs and the embedded server's data, after asking."""
    layers = [settings.layer_path(layer) for layer in LAYERS if settings.layer_path(layer).exists()]
    tables = [path / domain for path in map(settings.layer_path, LAYERS) for domain in catalogue.domains()]
    ours = [
        path for path in (*tables, *(layer / name for layer in layers for name in run_log.RECORDS)) if path.exists()
    ]
    exports = [lake_folders.csv_path(settings, table) for table in catalogue.tables("gold")]
    files = [file for path in exports for file in (path, path.with_suffix(".parquet")) if file.exists()]
    files += [path for folder in (*layers, settings.export_path) if folder.exists() for path in temporary(folder)]
    data = [embedded.home()] if embedded.home().exists() else []
    if not (ours or files or data):
        report.say("nothing to delete")
        return
    report.say("this deletes:")
    for path in (*ours, *files, *data):
        report.say(f"  {path}")
    print("type yes to go on: ", end="", flush=True)
    answer = sys.stdin.readline().strip()
    if answer != "yes":
        report.say(f"{'' if answer else chr(10)}nothing was deleted")
        return
    with lake_folders.locked(settings):
        for path in ours:
            with lake_folders.storage(f"{path}"):
                shutil.rmtree(path)
        for path in files:
            remove(path)
        embedded.remove()
    _remove_empty([*layers, settings.export_path, *{layer.parent for layer in layers}])
    report.say("deleted")


def _remove_empty(folders: list[Path]) -> None:
    """Removes folders in which only our locks are left, except the home and the working directory."""
    for folder in folders:
        if (
            folder.exists()
            and folder not in (Path.home(), Path.cwd())
            and {path.name for path in folder.iterdir()} <= {lake_folders.LOCK, lake_folders.CSV_LOCK}
        ):
            shutil.rmtree(folder)
