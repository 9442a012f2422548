"""`make quality`: every rule of the last silver run, compared with the previous run. No JVM."""

from rich.table import Table as Grid

from conf.contract import Severity
from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.names import QUARANTINE
from pipelines.core.sql import spark_literal
from pipelines.lake import run_log
from pipelines.lake.runs import RuleRun


def quality(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Shows every rule of the last silver run of each domain, compared with the previous run, and a query that shows
    rows that failed."""
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
        report.say(f"silver.{domain}, run {runs[-1].run} of {runs[-1].finished:%Y-%m-%d %H:%M} UTC, {against}\n")
        report.show(_rules(rules, previous))
        report.say(f"\n{query(rules)}")


def _rules(rules: list[RuleRun], previous: dict[tuple[str, str], RuleRun]) -> Grid:
    table = grid("table", "rule", "severity", "tested", "failed", "share", "change", "keys", left=3)
    table.columns[-1].justify = "left"
    for rule in rules:
        earlier = previous.get((rule.table, rule.rule))
        change = f"{rule.failed - earlier.failed:+,}" if earlier and rule.failed != earlier.failed else ""
        share = f"{rule.share:.2%}" if rule.failed else ""
        numbers = (f"{rule.tested:,}", f"{rule.failed:,}", share, change)
        style = "bold" if rule.failed else None
        table.add_row(rule.table, rule.rule, rule.severity.value, *numbers, "; ".join(rule.keys), style=style)
    return table


def query(rules: list[RuleRun]) -> str:
    """SQL for `make shell` that shows the rows of the worst rule: quarantine before warnings, then by failed rows."""
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
        where = f"silver.{worst.table}{QUARANTINE} WHERE array_contains(_reasons, {spark_literal(worst.rule)})"
    return f'the rows, in `make shell`:\nspark.sql("SELECT * FROM {where}").show(truncate=False)'
