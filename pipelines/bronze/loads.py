"""How each table of the source is loaded: which columns, read as what, and whether in full or by what changed.

And how columns that no contract names differ from those that the previous run found.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from conf.contract import Table
from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault
from pipelines.core.names import DELETED
from pipelines.lake.delta import CHANGE
from pipelines.lake.runs import RunContext, TableRun, reason_for_full, table_runs
from pipelines.sources.postgres import fingerprint
from pipelines.sources.postgres.reader import POSTGRES_AUDIT, ReadPlan
from pipelines.sources.postgres.search_path import by_search_path
from pipelines.sources.postgres.snapshot import Snapshot, describe
from pipelines.sources.postgres.types import MONEY_PLACES, Reading, natural_type, read_as


@dataclass(frozen=True)
class LoadPlan:
    """How a table is loaded: in full, and `why`; or, when that is empty, by what changed since its `previous` run.
    `newer`: the SQL condition of the rows written since then, "false" for a load in full. `basis`: the facts, as JSON,
    that later incremental loads rest on."""

    plan: ReadPlan
    basis: str
    why: str
    newer: str
    previous: TableRun | None


def read_plans(snapshot: Snapshot, tables: tuple[Table, ...]) -> list[ReadPlan]:
    """The plans of all tables. Raises one ContractFault that names everything that is missing or does not convert."""
    plans, problems = [], []
    for table in tables:
        try:
            plans.append(_read_plan(snapshot, table))
        except ContractFault as fault:
            problems.append(str(fault))
    if problems:
        raise ContractFault(f"the source is not what the contracts say: {'; '.join(problems)}")
    return plans


def _read_plan(snapshot: Snapshot, table: Table) -> ReadPlan:
    """Every declared column as its contract's type, then the source's other columns as their own. Raises
    ContractFault naming each declared column that is missing or of another family."""
    relation = describe(snapshot, table.source_name)
    if relation is None:
        raise ContractFault(f"table {snapshot.schema}.{table.source_name} is missing")
    problems, readings = list[str](), dict[str, Reading]()
    types = {column.name: column.type for column in table.columns}
    place = f"column {relation.schema}.{relation.name}"
    source = {column.name: column for column in relation.columns}
    extras = [column for column in relation.columns if column.name not in types]
    for column in table.columns:
        if column.name not in source:
            if not column.optional:
                alike = difflib.get_close_matches(column.name, [extra.name for extra in extras], n=1)
                problems.append(f"{place}.{column.name} is missing" + (f"; is it {alike[0]} now?" if alike else ""))
        elif reading := read_as(source[column.name], column.type):
            readings[column.name] = reading
        else:
            kind = source[column.name].type
            problems.append(f"{place}.{column.name} is {kind}, which cannot become {column.type} exactly")
    names = {name.lower(): name for name in (*types, *POSTGRES_AUDIT)}
    for extra in extras:
        if alike_name := names.get(extra.name.lower()):
            taken = "of this name" if alike_name == extra.name else "whose name differs only in case"
            problems.append(f"{place}.{extra.name}: bronze has a column {taken}; rename it, or leave it out")
            continue
        names[extra.name.lower()] = extra.name
        types[extra.name] = natural_type(extra)
        natural = read_as(extra, types[extra.name])
        assert natural is not None, "every column can be read as its natural type"
        readings[extra.name] = natural
    problems += [f"{place}.{column.name}: no right to read it" for column in relation.columns if not column.readable]
    problems += [
        f"{place}.{column.name} holds money, whose text would have {MONEY_PLACES} decimal places, not the "
        f"{column.scale} of the database's lc_monetary; make it numeric"
        for column in relation.columns
        if column.has_money and column.scale != MONEY_PLACES and types.get(column.name) == "string"
    ]
    if not relation.has_xmin:
        problems += [
            f"view {relation.schema}.{relation.name}: {caller} finds {thing} by search_path, which is only pg_catalog "
            f"here; {f'ALTER FUNCTION {caller} SET search_path = {path}' if path else 'write the schema into it'}"
            for caller, thing, path in by_search_path(snapshot, relation.oid)
        ]
    if problems:
        raise ContractFault("; ".join(problems))
    return ReadPlan(table, relation, readings, types | POSTGRES_AUDIT)


def plan_loads(settings: Settings, snapshot: Snapshot, plans: list[ReadPlan], call: RunContext) -> list[LoadPlan]:
    """How each table will be loaded: in full if anything could hide a change from `xmin`, or if it is due."""
    server = fingerprint.server_facts(snapshot, settings)
    known = table_runs(call.previous)
    went_back = fingerprint.went_back(call.previous, snapshot) if call.previous else ""
    newer = fingerprint.newer_than(call.previous.snapshot) if call.previous else "false"
    loads = []
    for plan in plans:
        facts, unfit = fingerprint.table_facts(snapshot.connection, plan, server)
        previous = known.get(plan.table.name)
        why = of_earlier_release(previous)
        why = why or reason_for_full(settings, previous, plan.table.name in call.full, call.run.started)
        if previous and not why:
            is_reserved = CHANGE in map(str.lower, plan.types)
            why = f"change data files have a column {CHANGE}, too" if is_reserved else unfit
            why = why or went_back or fingerprint.what_changed(previous.basis, facts)
        loads.append(LoadPlan(plan, facts, why, "false" if why else newer, previous))
    return loads


def of_earlier_release(previous: TableRun | None) -> str:
    """Why a table is written anew, whatever changed: superseded rows are in its files. Empty if none can be."""
    is_old = previous is not None and any(column.name == DELETED for column in previous.columns)
    return "an earlier release kept superseded rows in its files" if is_old else ""


def guaranteed(plan: ReadPlan) -> tuple[str, ...]:
    """What the source's constraints promise of numbers: "key", and each column whose reference holds. Texts are left
    out: cleaning may make two of them equal."""
    table, relation = plan.table, plan.relation
    exact = {column.name for column in table.columns if column.type != "string"}
    key = ("key",) if set(table.keys) <= exact and frozenset(table.keys) in relation.unique else ()
    single = [(column.name, other.table) for column, other in table.references if not other.with_columns]
    held = [name for name, other in single if (name, other.source_name, other.keys[0]) in relation.foreign_keys]
    return (*key, *(name for name in held if name in exact))


def drift(plan: ReadPlan, previous: TableRun) -> list[str]:
    """What changed, since the previous run, in the columns that no contract names."""
    named = {column.name for column in plan.table.columns} | set(POSTGRES_AUDIT)
    old = {column.name: column.type for column in previous.columns if column.name not in named}
    new = {name: kind for name, kind in plan.types.items() if name not in named}
    column = f"column {plan.relation.schema}.{plan.relation.name}."
    return (
        [f"{column}{name} is new: {kind}" for name, kind in new.items() if name not in old]
        + [f"{column}{name} is gone" for name in old if name not in new]
        + [f"{column}{name} was {old[name]}, is {kind}" for name, kind in new.items() if old.get(name, kind) != kind]
    )


def report_or_refuse(frozen: bool, drifted: Sequence[str], report: Report) -> None:
    """Each change is a warning. Raises ContractFault, naming all, when the schema is frozen."""
    if drifted and frozen:
        allowed = "set LAKEHOUSE_SCHEMA_DRIFT=evolve to take it, or name the column in its contract"
        raise ContractFault(f"{'; '.join(drifted)}; the schema is frozen: {allowed}")
    for change in drifted:
        report.warning(change)
