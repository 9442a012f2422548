"""What the last runs left to look at: `make status` for the morning, `make quality` for every rule. No JVM."""

from datetime import UTC, datetime, timedelta

from rich.table import Table as Grid

from conf.contract import Severity, Table
from conf.settings import Settings
from pipelines import catalogue, lake, records
from pipelines.domains import in_use
from pipelines.lake import LAYERS, QUARANTINE
from pipelines.records import RuleRun, Run
from pipelines.report import Report, grid


def status(settings: Settings, report: Report) -> None:
    """The last run of each layer: its number, its age, its rows, its warnings; and whether the CSV is gold's."""
    now = datetime.now(UTC)
    table = grid("layer", "domain", "source", "finished (UTC)", "run", "age", "rows", "set aside", left=4)
    notes = []
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for domain in in_use(settings):
            run = records.last_run(path, domain)
            if run is None:
                notes.append(f"{layer} has no complete run of {domain} in {path}: `make {layer}`")
                continue
            rows = sum(one.rows_out for one in run.tables if not one.is_beside)
            aside = sum(one.set_aside for one in run.tables)
            finished = f"{run.finished:%Y-%m-%d %H:%M}"
            numbers = (str(run.run), age(now - run.finished), f"{rows:,}", f"{aside:,}")
            table.add_row(layer, domain, run.source, finished, *numbers)
            notes += [f"warning: {text}" for text in run.warnings]
            notes += _behind(settings, layer, domain, run)
            notes += [note for one in catalogue.of(layer, domain) if one.csv for note in _csv(settings, one, run)]
    if table.row_count:
        report.show(table)
    for note in notes:
        report.say(note)


def age(since: timedelta) -> str:
    """As a person says it: `3 d 4 h`, `5 h 12 min`, `0 min`."""
    minutes = int(since.total_seconds()) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _behind(settings: Settings, layer: str, domain: str, run: Run) -> list[str]:
    if layer == LAYERS[0]:
        return []
    before = LAYERS[LAYERS.index(layer) - 1]
    content = {one.run: one.content for one in records.read_runs(settings.layer_path(before), domain=domain)}
    if not content or content.get(run.upstream_run or 0) == content[last := max(content)]:
        return []
    return [f"{layer} was built from {before}'s run {run.upstream_run}, the last one is {last}: `make {layer}`"]


def _csv(settings: Settings, table: Table, run: Run) -> list[str]:
    path = lake.csv_path(settings, table)
    if not path.exists():
        return [f"{path} is gone: `make export`"]
    return (
        [] if lake.sha256(path) == run.csv_sha256 else [f"{path} is not what gold's run {run.run} wrote: `make export`"]
    )


def quality(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Every rule of the last silver run of some domains, against the run before; of each, the query that shows rows."""
    path = settings.silver_path
    built = {domain: records.read_runs(path, domain=domain) for domain in domains}
    if not any(built.values()):
        raise records.no_complete_run(settings, "silver")
    for index, (domain, runs) in enumerate((domain, runs) for domain, runs in built.items() if runs):
        if index:
            report.say("")
        rules = records.read_rules(path, runs[-1])
        before = {(rule.table, rule.rule): rule for rule in records.read_rules(path, runs[-2])} if runs[1:] else {}
        against = f"change against run {runs[-2].run}" if before else "no run before it"
        report.say(f"silver.{domain}, run {runs[-1].run} of {runs[-1].finished:%Y-%m-%d %H:%M} UTC, {against}\n")
        report.show(_rules(rules, before))
        report.say(f"\n{query(rules)}")


def _rules(rules: list[RuleRun], before: dict[tuple[str, str], RuleRun]) -> Grid:
    table = grid("table", "rule", "severity", "tested", "failed", "share", "change", "keys", left=3)
    table.columns[-1].justify = "left"
    for rule in rules:
        was = before.get((rule.table, rule.rule))
        change = f"{rule.failed - was.failed:+,}" if was and rule.failed != was.failed else ""
        share = f"{rule.share:.2%}" if rule.failed else ""
        numbers = (f"{rule.tested:,}", f"{rule.failed:,}", share, change)
        style = "bold" if rule.failed else None
        table.add_row(rule.table, rule.rule, rule.severity.value, *numbers, "; ".join(rule.keys), style=style)
    return table


def query(rules: list[RuleRun]) -> str:
    """The SQL, for `make shell`, that shows the rows of the rule that most rows failed."""
    failed = sorted(
        (rule for rule in rules if rule.failed), key=lambda rule: (rule.severity is Severity.WARN, -rule.failed)
    )
    if not failed:
        return "no row failed a rule"
    worst = failed[0]
    if worst.severity is Severity.WARN:
        key = next(table for table in catalogue.tables("silver") if table.name == worst.table).keys[0]
        where = f"silver.{worst.table} WHERE {key} IN ({', '.join(worst.keys)})"
    else:
        name = worst.rule.replace("\\", "\\\\").replace("'", "\\'")
        where = f"silver.{worst.table}{QUARANTINE} WHERE array_contains(_reasons, '{name}')"
    return f'the rows, in `make shell`:\nspark.sql("SELECT * FROM {where}").show(truncate=False)'
