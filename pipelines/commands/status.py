"""`make status` shows the last runs, `make quality` how silver's rules fared, `make answers` gold's rows. No JVM."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from conf.contract import Severity, Table
from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.grid import Grid, marked
from pipelines.core.names import LAYERS, QUARANTINE, upstream_layer
from pipelines.core.sql import identifier, spark_literal, spark_literal_in_python
from pipelines.core.types import type_of
from pipelines.lake import folders, run_log
from pipelines.lake.engine import engine
from pipelines.lake.runs import RuleRun, Run
from pipelines.lake.versions import table_version
from pipelines.sources.domains import in_use

ANSWER_ROWS = 15


def status(settings: Settings, report: Report) -> None:
    """Shows the last run of each layer: its number, age, rows and warnings, and whether the CSV is what gold wrote."""
    now = datetime.now(UTC)
    titles = ("layer", "domain", "source", "finished (UTC)", "run", "age", "rows", "set aside")
    table = Grid(titles, words=titles[:4], below=("source",))
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
            numbers = (str(run.run), age(now - run.finished), f"{rows:,}", marked(aside, "yellow"))
            table.add_row(layer, domain, run.source, finished, *numbers)
            notes += [("warning", text) for text in run.warnings]
            notes += [("info", text) for text in _behind(settings, layer, domain, run)]
            for exported in (contract for contract in catalogue.tables_of(layer, domain) if contract.csv):
                notes += [("info", text) for text in _csv(settings, exported, run)]
    if table.rows:
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


def quality(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Shows every rule of the last silver run of each domain, what changed since, and a query for rows that failed."""
    path = settings.silver_path
    built = {domain: run_log.read_runs(path, domain=domain) for domain in domains}
    if not any(built.values()):
        raise run_log.no_complete_run(settings, "silver")
    for index, (domain, runs) in enumerate((domain, runs) for domain, runs in built.items() if runs):
        if index:
            report.say("")
        rules = run_log.read_rules(path, runs[-1])
        previous = {(rule.table, rule.rule): rule for rule in run_log.read_rules(path, runs[-2])} if runs[1:] else {}
        against = f"changes since run {runs[-2].run}" if previous else "no previous run"
        report.say(f"silver.{domain}, run {runs[-1].run} of {runs[-1].finished:%Y-%m-%d %H:%M} UTC, {against}", "")
        listed = rules if report.as_json else [rule for rule in rules if rule.failed or _change(rule, previous)]
        if listed:
            report.show(rules_grid(listed, previous))
        if without := len(rules) - len(listed):
            report.say(f"{without:,} rule{'' if without == 1 else 's'} without a failure")
        report.say("", *query(rules).split("\n"))


def rules_grid(rules: list[RuleRun], previous: Mapping[tuple[str, str], RuleRun]) -> Grid:
    """The rules with the rows that failed each: what was set aside before what is merely odd, the worst first."""
    titles = ("table", "rule", "severity", "tested", "failed", "share", "change", "keys")
    table = Grid(titles, words=("table", "rule", "severity", "keys"), below=("rule", "keys"))
    for rule in sorted(rules, key=_by_weight):
        style = "yellow" if rule.severity is Severity.WARN else "red"
        numbers = (f"{rule.tested:,}", marked(rule.failed, style), share(rule), _change(rule, previous))
        table.add_row(rule.table, rule.rule, rule.severity.value, *numbers, "; ".join(rule.keys))
    return table


def _by_weight(rule: RuleRun) -> tuple[bool, bool, int]:
    return not rule.failed, rule.severity is Severity.WARN, -rule.failed


def _change(rule: RuleRun, previous: Mapping[tuple[str, str], RuleRun]) -> str:
    """By how many rows more or fewer a rule failed than in the previous run; empty when by none."""
    earlier = previous.get((rule.table, rule.rule))
    return f"{rule.failed - earlier.failed:+,}" if earlier and rule.failed != earlier.failed else ""


def share(rule: RuleRun) -> str:
    """The share of rows that failed, in percent; empty for none."""
    return "" if not rule.failed else f"{rule.share:.2%}" if rule.share >= 0.0001 else "<0.01%"


def query(rules: list[RuleRun]) -> str:
    """SQL for `make shell` that shows the rows of the worst rule: quarantine before warnings, then by failed rows."""
    worst = min(rules, key=_by_weight, default=None)
    if not (worst and worst.failed):
        return "no row failed a rule"
    if worst.severity is Severity.WARN:
        table = next(table for table in catalogue.tables("silver") if table.name == worst.table)
        key, *others = table.keys
        is_number = not others and type_of(table[key].type).is_integer
        values = ", ".join(value if is_number else spark_literal_in_python(value) for value in worst.keys)
        key = f"concat_ws(', ', {', '.join(table.keys)})" if others else key
        where = f"silver.{worst.table}\nWHERE {key} IN ({values})"
    else:
        where = f"silver.{worst.table}{QUARANTINE}\nWHERE array_contains(_reasons, {spark_literal(worst.rule)})"
    return f'the rows, in `make shell`:\nspark.sql(r"""SELECT * FROM {where}\n""").show(truncate=False)'


def answers(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Shows the first rows of gold's tables without a CSV, in reading order. Raises QualityFault without a run."""
    runs = [run for domain in domains if (run := run_log.last_run(settings.gold_path, domain))]
    for run in runs:
        run_log.check_tables("gold", settings.gold_path, run)
    if not runs:
        raise run_log.no_complete_run(settings, "gold")
    answers = [(run, table) for run in runs for table in catalogue.tables_of("gold", run.domain) if not table.csv]
    if not answers:
        named = ", ".join(run.domain for run in runs)
        report.say(f"no table of {named} answers a question; what gold exports is in {settings.export_path}")
    for run, table in answers:
        content = table_version(settings.gold_path, run, table)
        names = [column.name for column in table.columns]
        by = table.order or table.keys
        order = (f"{identifier(name.lstrip('-'))}{' DESC' * name.startswith('-')}" for name in by)
        shown = ", ".join(f"{identifier(name)}::varchar" for name in names)
        with engine(f"gold.{table.name}") as db:
            rows = db.execute(
                f"SELECT {shown} FROM {content.sql} ORDER BY {', '.join(order)} LIMIT {ANSWER_ROWS}"
            ).fetchall()
        report.say("", f"gold.{table.name}: {table.comment}")
        lines = Grid(tuple(names), words=tuple(column.name for column in table.columns if column.type == "string"))
        for row in rows:
            lines.add_row(*("" if value is None else value for value in row))
        report.show(lines)
        if (more := run.table(table.name).rows_out - len(rows)) > 0:
            report.say(f"… {more:,} more rows; all: make export TABLES={table.name}")
