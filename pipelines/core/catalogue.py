"""Finds the tables, in the order in which they can be built: a module a table, in `<layer>/<domain>/`."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from conf.contract import Table
from pipelines.core import contracts, shortage
from pipelines.core.errors import UsageFault
from pipelines.core.names import HISTORY, QUARANTINE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Entry:
    """A table and how it is made; bronze tables have no transform."""

    table: Table
    transform: "Callable[..., DataFrame] | None"


@cache
def entries(layer: str) -> tuple[Entry, ...]:
    """The layer's tables, parents before children, by name otherwise. Raises UsageFault naming all that is wrong."""
    modules: dict[str, Entry] = {}
    problems, names = list[str](), dict[str, str]()
    for module in _modules(layer):
        table, file = getattr(module, "TABLE", None), contracts.file_of(module.__name__)
        if not isinstance(table, Table) or table.module != module.__name__:
            problems.append(
                f"{file}: it declares no table; write TABLE = Table(__name__, __doc__, …), or move the file"
            )
            continue
        modules[table.module] = entry = Entry(table, getattr(module, "transform", None))
        problems += [f"{file}: {problem}" for problem in contracts.mistakes(table, entry.transform)]
        if (other := names.setdefault(table.name, file)) != file:
            problems.append(f"{file}: {other} has that name in {layer}, too; rename one of them")
    if problems:
        raise UsageFault("; ".join(problems))
    order: TopologicalSorter[str] = TopologicalSorter()
    for name in sorted(modules):
        table = modules[name].table
        parents = [reference.table for _, reference in table.references] + list(table.inputs)
        order.add(name, *sorted(parent.module for parent in parents if parent.module in modules))
    return tuple(modules[name] for name in order.static_order())


def tables(layer: str) -> tuple[Table, ...]:
    return tuple(entry.table for entry in entries(layer))


def table_of(layer: str, domain: str, name: str) -> Table | None:
    """The contract of a table, or of what lies beside it; None when no contract names it any more."""
    name = name.removesuffix(QUARANTINE).removesuffix(HISTORY)
    return next((table for table in tables_of(layer, domain) if table.name == name), None)


def tables_of(layer: str, domain: str) -> tuple[Table, ...]:
    """The layer's tables of a domain, parents before children."""
    return tuple(table for table in tables(layer) if table.domain == domain)


def domains() -> tuple[str, ...]:
    """The business domains, by name."""
    return tuple(sorted({table.domain for table in tables("bronze")}))


def is_of_files(domain: str) -> bool:
    """Whether the source of a domain is files; else it is PostgreSQL."""
    return any(table.files for table in tables_of("bronze", domain))


def _modules(layer: str) -> list[ModuleType]:
    places = importlib.import_module(layer).__path__
    every = (file for place in places for file in Path(place).glob("*/*.py"))
    # Not what an editor or a Mac leaves there for a while, such as .#conta.py.
    named = (file for file in every if "." not in file.parent.name + file.stem)
    files = sorted(named, key=lambda file: file.parts[-2:])
    for folder in (file.parent for file in files if not file.with_name("__init__.py").exists()):
        raise UsageFault(f"{folder} has no __init__.py, so that its tables are not found; make an empty one")
    return [_imported(f"{layer}.{file.parent.name}.{file.stem}") for file in files if file.stem != "__init__"]


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        if fault := shortage.fault_of(error):
            raise fault from error
        raise UsageFault(contracts.python_mistake(error, name, contracts.names_of_contracts())) from error
