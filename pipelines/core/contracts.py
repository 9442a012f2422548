"""What is wrong with a table's file, as its author reads it: the place, the thing, and the nearest name that exists."""

import difflib
import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path

from conf import contract
from conf.contract import Column, Csv, Files, Reference, Table, Total
from pipelines.core.errors import UsageFault
from pipelines.core.names import LAYERS, upstream_layer
from pipelines.core.texts import shorten
from pipelines.core.types import TYPES, contract_type


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?` for the nearest of some names, or nothing."""
    alike = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {alike[0]}?" if alike else ""


def file_of(module: str) -> str:
    """The file of a table, from the project's folder."""
    return f"{module.replace('.', '/')}.py"


def python_mistake(error: Exception, module: str, known: Iterable[str], what: str = "imported") -> str:
    """Where in the files of tables Python or Spark raised an error, and the error. `known`: names that it may mean."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or "", error.lineno))
    place, text = file_of(module), str(error).strip().split("\n")[0].partition(" SQLSTATE: ")[0]
    for file, line in frames:
        for folder in (folder for folder in _folders() if Path(file).is_relative_to(folder)):
            place = f"{Path(file).relative_to(folder.parent)}, line {line}"
    text = re.sub(r" \(/.*\)$", "", text)  # the path of a module
    word = re.search(r"['`]([\w.]+)['`]", text)
    meant = nearest(word[1], known) if word and "did you mean" not in text.lower() else ""
    return f"{place}: {module.split('.')[-1]} cannot be {what}: {type(error).__name__}: {shorten(text, 300)}{meant}"


def names_of_contracts() -> set[str]:
    """Every name that a table's file may take from elsewhere in the project, or say to a contract."""
    words = {field.name for kind in (Column, Csv, Files, Reference, Table, Total) for field in fields(kind)}
    files = [path for folder in _folders() for path in folder.glob("*/*.py")]
    modules = {".".join((*path.parts[-3:-1], path.stem)) for path in files}
    return words | set(vars(contract)) | {path.stem for path in files} | modules


def _folders() -> list[Path]:
    """The folders of the layers."""
    return [Path(folder) for layer in LAYERS for folder in importlib.import_module(layer).__path__]


def mistakes(table: Table, transform: Callable[..., object] | None) -> Iterator[str]:
    """What a contract says that cannot be: types, keys, references, inputs, and the parameters of the transform."""
    own = [column.name for column in table.columns]
    for column in table.columns:
        try:
            contract_type(column.type)
        except UsageFault as fault:
            yield f"column {column.name}: {fault}{nearest(column.type, TYPES)}"
    if twice := [name for name in own if [other.lower() for other in own].count(name.lower()) > 1]:
        yield f"column {twice[0]} is there twice"
    if not table.keys:
        yield "no column is its key: say key=True"
    for column, reference in table.references:
        yield from _lacking(f"the reference of {column.name}", reference.columns, reference.table)
        yield from _lacking(f"the reference of {column.name}", reference.with_columns, table)
        if reference.table.layer != table.layer:
            yield f"column {column.name} refers to {reference.table.module}: refer to a table of {table.layer}"
        elif len(column.foreign_key) != len(reference.table.keys):
            keys = ", ".join(reference.table.keys)
            yield f"column {column.name} refers to {reference.table.name}, whose key is {keys}: see with_columns="
    parents = [reference.table.name for _, reference in table.references]
    if table.layer == LAYERS[1] and (twice := [name for name in parents if parents.count(name) > 1]):
        yield f"two columns refer to {twice[0]}: rules would not tell them apart; let one of them refer to it"
    if table.files:
        yield from _lacking("decimal_comma=", table.files.dialect.decimal_comma, table)
    yield from _lacking("order=", (name.lstrip("-") for name in table.order), table)
    if table.layer != LAYERS[0]:
        yield from _mistakes_of_inputs(table, transform)


def _mistakes_of_inputs(table: Table, transform: Callable[..., object] | None) -> Iterator[str]:
    below, inputs = upstream_layer(table.layer), [source.name for source in table.inputs]
    if wrong := [source.module for source in table.inputs if source.layer != below]:
        yield f"inputs= has {wrong[0]}: name tables of {below}"
    if not inputs:
        yield f"it has no inputs=: name tables of {below}"
    if table.one_row_per and table.one_row_per not in table.inputs:
        yield f"one_row_per={table.one_row_per.name} is not one of its inputs, {', '.join(inputs)}"
    known = {column.name for source in table.inputs for column in source.columns}
    for column in table.columns:
        if (column.source or table.layer == "silver") and column.made_from not in known:
            yield f"column {column.name}: no input has a column {column.made_from}{nearest(column.made_from, known)}"
        if column.total:
            yield from _lacking(f"the total of {column.name}", filter(None, [column.total.column]), column.total.table)
    if transform is None:
        yield f"it has no function transform({', '.join(inputs)})"
    elif (taken := list(inspect.signature(transform).parameters)) != inputs:
        yield f"its transform takes {', '.join(taken) or 'nothing'}: it must take its inputs, {', '.join(inputs)}"


def _lacking(place: str, names: Iterable[str], table: Table) -> Iterator[str]:
    known = [column.name for column in table.columns]
    for name in (name for name in names if name not in known):
        yield f"{place}: {table.name} has no column {name}{nearest(name, known)}"
