"""Views whose functions find things by search_path, which is ours then. The names in a view are resolved when it is
made, those in the text of a function when it runs; without its table it may return something else."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from pipelines.core.sql import identifier, read_sql
from pipelines.sources.postgres.snapshot import Snapshot
from pipelines.sources.postgres.transaction import attempt

FUNCTIONS = read_sql(__file__, "search_path_functions.sql")
THINGS = read_sql(__file__, "search_path_things.sql")

NAME = r'(?:"[^"]+"|[^\W\d][\w$]*+)'
NAMES = rf"{NAME}(?:\s*\.\s*{NAME})*+"
TABLE = rf"(?:(?:only|lateral)\s+)?{NAMES}(?!\s*\()(?:\s+(?:as\s+)?{NAME})?"

# Names and texts of names; what is no SQL: comments, and other texts unless the SQL is put together; a FROM that names
# no table.
TOKEN = rf"""(?is)("[^"]*"|'{NAMES}')|--[^\n]*|/\*.*?\*/|(\be'(?:[^'\\]|\\.)*+'|'[^']*'|\$(|[^\W\d]\w*)\$.*?\$\3\$)"""
EXECUTES = re.compile(r"\bexecute\b|_to_xml|\bspi[._]|\bplpy\b|\bts_(?:stat|rewrite)\b|\bcrosstab|\bconnectby\b", re.I)
INSIDE = r"(?:[^()]|\((?:[^()]|\([^()]*+\))*+\))*?"
FROM = re.compile(rf"(\b(?:extract|trim|substring|overlay)\s*\({INSIDE})\bfrom\b|\bdistinct\s+from\b", re.I)
AS_QUERY = r"\bas\s+(?:not\s+)?(?:materialized\s+)?\(\s*(?:select|values|with|table|\()"
ALIAS = rf"(?:\)|\bas\b|\b(?:from|join)\s+(?!lateral\b)(?:only\s+)?{NAMES})\s*{NAME}\s*\("
# What a text names, also in the SQL that it puts together.
PLACES = {
    "relation": rf"\b(?:from|join)\s+({TABLE}(?:\s*,\s*{TABLE})*)|to_reg\w+\s*\(\s*'({NAMES})'|'({NAMES})'\s*::\s*reg",
    "function": rf'{ALIAS}|(?<![\w$".])({NAMES})\s*\((?![^()]*\)\s*{AS_QUERY})',
    "schema": r"\b(current_schema)s?\b",
    "type": rf"(?:::|\bcast\s*\([^()]*\bas\b)\s*({NAMES})",
}
WITH = rf"({NAME})\s*(?:\([^()]*\)\s*)?{AS_QUERY}"


def named(text: str) -> set[tuple[str, str, str]]:
    """What the text of a function names: its kind, which is one of PLACES; schema, empty if it says none; name."""
    text = re.sub(TOKEN, r"\1\2 " if EXECUTES.search(text) else r"\1 ", text)
    while text != (text := FROM.sub(r"\1 ", text)):
        pass
    listed = ((kind, match) for kind, place in PLACES.items() for match in re.finditer(place, text, re.I))
    names = {(kind, *_parsed(item)) for kind, match in listed for item in match[match.lastindex or 0].split(",")}
    return names - {("relation", *_parsed(match[1])) for match in re.finditer(WITH, text, re.I)}


def _parsed(written: str) -> tuple[str, str]:
    names = re.match(rf"\s*(?:(?:only|lateral)\s+)?({NAMES})", written, re.I)
    parts = [each.strip('"') if '"' in each else each.lower() for each in re.findall(NAME, names[1] if names else "")]
    return "".join(parts[-2:-1]), "".join(parts[-1:])


def by_search_path(snapshot: Snapshot, view: int) -> Iterator[tuple[str, str, str]]:
    """Of each function that a view (its oid) calls, itself or through others, and of each view below: its name, what it
    finds by search_path, and the search_path that it needs for that, empty if none helps. Nothing where the server does
    not show its functions."""

    def rows(sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        return attempt(partial(snapshot.connection.rows, parameters=parameters), sql) or []

    known, reached = set[int](), {"relation": [view]}
    finds = defaultdict[str, set[tuple[str, str]]](set)
    while reached:
        texts = rows(FUNCTIONS, views=reached.get("relation", []), functions=reached.get("function", []))
        texts = [each for each in texts if each[0] not in known]
        known.update(each[0] for each in texts)
        for _, caller, _, overloads in texts:
            finds[caller] |= {(name, schema) for schema, name in overloads if schema in snapshot.path}
        mentions = [(caller, *each) for _, caller, text, _ in texts for each in named(text)]
        things = rows(THINGS, names=[name for *_, name in mentions])
        reached = defaultdict(list)
        for caller, kind, schema, name in mentions:
            places = [schema] if schema else snapshot.path
            meant = [thing for thing in things if thing[:2] == (kind, name) and thing[2] in places]
            first = min(
                (thing[2] for thing in meant), key=places.index, default="" if kind == "schema" else "pg_catalog"
            )
            if first != "pg_catalog":
                reached[kind] += [oid for *_, oid in meant]
                finds[caller] |= set() if schema else {(name, first)}
    for caller, by_path in finds.items():
        if by_path:
            names, schemas = (sorted(set(each)) for each in zip(*by_path, strict=True))
            path = [
                identifier(each) for each in snapshot.path if each in ("pg_catalog", *schemas) and "" not in schemas
            ]
            yield caller, ", ".join(names), ", ".join(path)
