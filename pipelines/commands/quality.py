"""`make quality`: every rule of the last silver run, against the run before it. No JVM."""

from rich.table import Table as Grid

from conf.contract import Severity
from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report, grid
from pipelines.core.names import QUARANTINE
from pipelines.lake import run_log
from pipelines.lake.runs import RuleRun


def quality(settings: Settings, domains: tuple[str, ...], report: Report) -> None:
    """Every rule of the last silver run of some domains, against the run before; of each, the query that shows rows."""
    path = settings.silver_path
    built = {domain: run_log.read_runs(path, domain=domain) for domain in domains}
    if not any(built.values()):
        raise run_log.no_complete_run(settings, "silver")
    for index, (domain, runs) in enumerate((domain, runs) for domain, runs in built.items() if runs):
        if index:
            report.say("")
        rules = run_log.read_rules(path, runs[-1])
        before = {(rule.table, rule.rule): rule for rule in run_log.read_rules(path, runs[-2])} if runs[1:] else {}
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
