"""`make status`: the last run of each layer, its age, its warnings. No JVM."""

from datetime import UTC, datetime, timedelta

from conf.contract import Table
from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.names import LAYERS, upstream_layer
from pipelines.lake import folders, run_log
from pipelines.lake.runs import Run
from pipelines.sources.domains import in_use


def status(settings: Settings, report: Report) -> None:
    """Shows the last run of each layer: its number, age, rows and warnings, and whether the CSV is what gold wrote."""
    now = datetime.now(UTC)
    table = grid("layer", "domain", "source", "finished (UTC)", "run", "age", "rows", "set aside", left=4)
    notes: list[tuple[str, str]] = []  # level and text
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for domain in in_use(settings):
            run = run_log.last_run(path, domain)
            if run is None:
                notes.append(("info", f"{layer} has no complete run of {domain} in {path}: `make {layer}`"))
                continue
            rows = sum(table_run.rows_out for table_run in run.tables if not table_run.is_beside)
            aside = sum(table_run.set_aside for table_run in run.tables)
            finished = f"{run.finished:%Y-%m-%d %H:%M}"
            numbers = (str(run.run), age(now - run.finished), f"{rows:,}", f"{aside:,}")
            table.add_row(layer, domain, run.source, finished, *numbers)
            notes += [("warning", text) for text in run.warnings]
            notes += [("info", text) for text in _behind(settings, layer, domain, run)]
            for exported in (contract for contract in catalogue.tables_of(layer, domain) if contract.csv):
                notes += [("info", text) for text in _csv(settings, exported, run)]
    if table.row_count:
        report.show(table)
    for level, text in notes:
        report.say(text, level=level)


def age(since: timedelta) -> str:
    """An age as a person writes it: `3 d 4 h`, `5 h 12 min`, `0 min`."""
    minutes = int(since.total_seconds()) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _behind(settings: Settings, layer: str, domain: str, run: Run) -> list[str]:
    """A note if the layer was built from other content than its upstream layer has."""
    if layer == LAYERS[0]:
        return []
    upstream = upstream_layer(layer)
    content = {each.run: each.built_in for each in run_log.read_runs(settings.layer_path(upstream), domain=domain)}
    if not content or content.get(run.upstream_run or 0) == content[last := max(content)]:
        return []
    return [f"{layer} was built from {upstream}/{run.upstream_run}, but {upstream}/{last} is the last: `make {layer}`"]


def _csv(settings: Settings, table: Table, run: Run) -> list[str]:
    path = folders.csv_path(settings, table)
    if not path.exists():
        return [f"{path} is gone: `make export`"]
    written = {table_run.name: table_run.csv_sha256 for table_run in run.tables}
    if folders.sha256(path) == written.get(table.name):
        return []
    return [f"{path} is not what gold/{run.run} wrote: `make export`"]
