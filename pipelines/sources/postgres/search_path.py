"""Views whose functions find things by search_path, which is ours then. The names in a view are resolved when it is
made, those in the text of a function when it runs; without its table it may return something else."""

import re
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

# Comments, and a FROM behind which no table is.
NOISE = re.compile(r"--[^\n]*|/\*.*?\*/|\b(extract|trim|substring|overlay)\s*\([^()]*|\bdistinct\s+from\b", re.I | re.S)
# What a text names, also in the SQL that it puts together.
PLACES = {
    "relation": rf"\b(?:from|join)\s+({TABLE}(?:\s*,\s*{TABLE})*)|to_reg\w+\s*\(\s*'({NAMES})'|'({NAMES})'\s*::\s*reg",
    "function": rf'(?<![\w$".])(?<!\bas )({NAMES})\s*\(',
    "schema": r"\b(current_schema)s?\b",
    "type": rf"(?:::|\bcast\s*\([^()]*\bas\b)\s*({NAMES})",
}
WITH = rf"({NAME})\s*(?:\([^()]*\)\s*)?\bas\s+(?:not\s+)?(?:materialized\s+)?\("


def named(text: str) -> set[tuple[str, str, str]]:
    """What the text of a function names: its kind, which is one of PLACES; schema, empty if it says none; name."""
    text = NOISE.sub(" ", text)
    listed = ((kind, match) for kind, place in PLACES.items() for match in re.finditer(place, text, re.I))
    names = {(kind, *_parsed(item)) for kind, match in listed for item in match[match.lastindex or 0].split(",")}
    return names - {("relation", *_parsed(match[1])) for match in re.finditer(WITH, text, re.I)}


def _parsed(written: str) -> tuple[str, str]:
    names = re.match(rf"\s*(?:(?:only|lateral)\s+)?({NAMES})", written, re.I)
    parts = [each.strip('"') if '"' in each else each.lower() for each in re.findall(NAME, names[1] if names else "")]
    return "".join(parts[-2:-1]), "".join(parts[-1:])


def by_search_path(snapshot: Snapshot, view: int) -> Iterator[tuple[str, str, str]]:
    """Of each function that a view (its oid) calls, itself or through others, and of each view below: its name, what it
    finds by search_path, and the schema that has that, if any. Nothing where the server does not show its functions."""

    def rows(sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        return attempt(partial(snapshot.connection.rows, parameters=parameters), sql) or []

    known, views, functions = set[int](), [view], list[int]()
    while views or functions:
        texts = [each for each in rows(FUNCTIONS, views=views, functions=functions) if each[0] not in known]
        known.update(each[0] for each in texts)
        yield from ((caller, "operators", identifier(schema)) for _, caller, _, schema in texts if schema)
        mentions = [(caller, *each) for _, caller, text, _ in texts for each in sorted(named(text))]
        things = rows(THINGS, names=[name for *_, name in mentions])
        views, functions = [], []
        for caller, kind, schema, name in mentions:
            meant = [thing for thing in things if thing[:2] == (kind, name) and schema in ("", thing[2])]
            if all(thing[2] != "pg_catalog" for thing in meant):
                views += [oid for *_, oid in meant if kind == "relation"]
                functions += [oid for *_, oid in meant if kind == "function"]
                yield from ((caller, name, identifier(thing[2])) for thing in meant[:1] if not schema)
            if kind == "schema":
                yield caller, name, ""
