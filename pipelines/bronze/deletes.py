"""Which keys the source has no more. Lake and source both count the keys of each block; only blocks in which the counts
differ are read.

A block is the whole numbers that are the same without their last bits, or the texts that begin with the same
characters. Both engines take that exactly alike; boundaries of a `width_bucket` cost PostgreSQL 40 times as long for
texts.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pipelines.core.sql import duckdb_literal, identifier, postgres_literal
from pipelines.core.types import type_of
from pipelines.lake.engine import Engine, listed, without
from pipelines.lake.versions import TableVersion
from pipelines.sources.postgres.reader import ReadPlan

BLOCKS = 4096  # of texts of 64 different characters, two characters make as many
SAMPLE = 50_000  # keys, of which the size of blocks is taken
MOST_BLOCKS = 10 * BLOCKS  # the sample may not show them all
MOST_RANGES = 100  # which PostgreSQL looks up by index sooner than it reads the table


@dataclass(frozen=True)
class Source:
    """The source of a table in the run's snapshot. `ask` gives what the server answers to a query; `read` gives SQL of
    the rows of a plan that meet a condition."""

    plan: ReadPlan
    ask: Callable[[str], list[tuple[Any, ...]]]
    read: Callable[[ReadPlan, str], str]


@dataclass(frozen=True)
class Blocks:
    """The block of a key, in SQL of DuckDB (`here`) and of PostgreSQL (`there`), and its type in both. `shift`: the
    bits that whole numbers lose."""

    here: str
    there: str
    type: str
    shift: int = 0


def deleted_keys(db: Engine, source: Source, old: TableVersion, written: str) -> str:
    """SQL of the keys of `old` that the source has no more. `written`: a relation of the keys that were written since.
    If the source has others, too, the number of keys is not that of the deleted rows. Raises SourceFault."""
    within, condition = _differing(db, source, old, written) or ("true", "")
    types = {key: source.plan.types[key] for key in old.keys}
    readings = {key: source.plan.readings[key] for key in old.keys}
    now = source.read(replace(source.plan, readings=readings, types=types), condition)
    return without(f"(SELECT {listed(old.keys)} FROM {old.sql} WHERE {within})", old.keys, now)


def _differing(db: Engine, source: Source, old: TableVersion, written: str) -> tuple[str, str] | None:
    """The conditions, in SQL of DuckDB and of PostgreSQL, of the keys in blocks that differ; None if it is better to
    read all keys."""
    key, new, blocks = identifier(old.keys[0]), without(written, old.keys, old.sql), _blocks(db, source, old)
    if blocks is None:
        return None
    keys = f"(SELECT {key} FROM {old.sql} UNION ALL SELECT {key} FROM {new})"
    counted = db.execute(f"SELECT {blocks.here}, count(*) FROM {keys} GROUP BY 1 LIMIT {MOST_BLOCKS + 1}")
    expected = Counter(dict(counted.fetchall()))
    if len(expected) > MOST_BLOCKS:
        return None
    missing = Counter(expected)
    missing.subtract(dict(source.ask(f"SELECT {blocks.there}, count(*) FROM {source.plan.relation.sql} GROUP BY 1")))
    differing = sorted(block for block, number in missing.items() if number)
    if 2 * sum(expected[block] for block in differing) > expected.total():
        return None
    texts = [str(block) for block in differing]
    here = f"{blocks.here} IN (SELECT unnest([{', '.join(map(duckdb_literal, texts))}]::{blocks.type}[]))"
    there = f"{blocks.there} = ANY (ARRAY[{', '.join(map(postgres_literal, texts))}]::{blocks.type}[])"
    return here, there + (_ranges(key, differing, blocks.shift) if blocks.type == "bigint" else "")


def _blocks(db: Engine, source: Source, old: TableVersion) -> Blocks | None:
    """Blocks of the key's first column, as small as BLOCKS allows; None if both engines may not agree on them."""
    name, key = old.keys[0], identifier(old.keys[0])
    kind, value = type_of(old.types[name]), source.plan.readings[name].value
    sample = [item for (item,) in db.execute(f"SELECT {key} FROM {old.sql} USING SAMPLE {SAMPLE} ROWS").fetchall()]
    if kind.is_integer:
        shift = next(bits for bits in range(kind.bits) if len({item >> bits for item in sample}) <= BLOCKS)
        return Blocks(f"({key}::bigint >> {shift})", f"({value}::bigint >> {shift})", "bigint", shift)
    # In another encoding a character may be two of UTF-8.
    if kind.name != "string" or source.ask("SELECT current_setting('server_encoding')") != [("UTF8",)]:
        return None
    longest = max(map(len, sample), default=0)
    too_long = (length for length in range(1, longest + 1) if len({item[:length] for item in sample}) > BLOCKS)
    length = next(too_long, longest + 1) - 1
    return Blocks(f"left({key}, {length})", f'left({value}, {length}) COLLATE "C"', "text")


def _ranges(key: str, blocks: list[int], shift: int) -> str:
    """The rest of the condition of sorted blocks of whole numbers, for which PostgreSQL can use an index of the key."""
    known = set(blocks)
    starts = [block for block in blocks if block - 1 not in known]
    ends = [block for block in blocks if block + 1 not in known]
    bounds = [(start << shift, ((end + 1) << shift) - 1) for start, end in zip(starts, ends, strict=True)]
    ranges = " OR ".join(f"{key} BETWEEN '{low}'::bigint AND '{high}'::bigint" for low, high in bounds)
    return f" AND ({ranges})" if len(bounds) <= MOST_RANGES else ""
