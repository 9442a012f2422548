"""Properties over made-up sources: four related tables, nasty values, few keys, so that much collides.

`make test` tries a few, always the same; `make test-long` goes on with new ones.
"""

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note
from hypothesis import settings as properties
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.bronze import readers as bronze_readers
from pipelines.lake import run_log
from tests.support.lake import Lake
from tests.support.oracle import agree
from tests.support.source import TABLES, connected, execute, fresh_database, query

KEYS = st.one_of(st.none(), st.integers(-1, 4), st.integers(-1, 4), st.integers(-1, 4))
TEXTS = st.one_of(
    st.none(),
    st.text("aÁß \t\n\r\"',;\\#=😀\u00a0\u3000\u200b0", max_size=5),
    st.sampled_from(["", "NULL", "null", "\\N", '"', "d'Ávila", "McDonald", " x  y ", "a,b", "cr\r\nlf"]),
)
MOMENTS = st.sampled_from(
    [None, "2018-11-04 00:30:00", "2019-02-16 23:30:00.000001", "0001-01-01", "9999-12-31 23:59:59.999999", "infinity"]
    + ["-infinity", "0044-03-15 BC", "10000-01-01", "2024-02-29 12:00:00.5"]
)
AMOUNTS = st.one_of(
    st.sampled_from(
        [None, "NaN", "Infinity", "1.005", "99999999.99", "-99999999.99", "100000000", "0", "-0.00", "1.50"]
    ),
    st.decimals(-100, 100, places=2).map(str),
)
CARDS = st.sampled_from([None, "", "4111 1111-1111 1111", "0000123456789012", "123", "não", "4111111111111111"])
SOURCE = {
    "associado": (KEYS, TEXTS, TEXTS, st.one_of(st.none(), st.integers(-1, 200)), TEXTS),
    "conta": (KEYS, TEXTS, MOMENTS, KEYS),
    "cartao": (KEYS, CARDS, TEXTS, MOMENTS, KEYS, KEYS),
    "movimento": (KEYS, AMOUNTS, TEXTS, MOMENTS, KEYS),
}
SIZES = {"associado": 6, "conta": 6, "cartao": 8, "movimento": 14}


@st.composite
def sources(draw: st.DrawFn) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of the four tables; good ones first, so that something comes through."""
    good: dict[str, list[tuple[Any, ...]]] = {
        "associado": [(0, "Ana", None, 30, "a@b"), (1, "Bia", "d'Ávila", 0, None)],
        "conta": [(0, "corrente", None, 0), (1, "x", "2018-11-04 00:30:00", 1)],
        "cartao": [(0, "4111111111111111", "ANA", None, 0, 0)],
        "movimento": [(10, "1.25", "ok", "2024-01-01", 0), (11, "2.50", "", "2024-01-01", 0)],
    }
    more = {name: draw(st.lists(st.tuples(*columns), max_size=SIZES[name])) for name, columns in SOURCE.items()}
    return {name: good[name] + more[name] for name in good}


@pytest.fixture(scope="module")
def made_up(server: Postgres, any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One lake for all examples: each run finds what the one before left."""
    with fresh_database(server) as address:
        execute(address, *TABLES)
        yield Lake(tmp_path_factory.mktemp("made_up"), address, any_spark)


def fill(lakehouse: Lake, source: dict[str, list[tuple[Any, ...]]]) -> None:
    with connected(lakehouse.address) as connection, connection.cursor() as cursor:
        for name, rows in source.items():
            cursor.execute(f"TRUNCATE {name}")
            for row in rows:
                cursor.execute(f"INSERT INTO {name} VALUES ({', '.join(['%s'] * len(row))})", row)


def quarantined(lakehouse: Lake) -> dict[str, list[dict[str, Any]]]:
    return {name: lakehouse.table("silver", f"{name}__quarantine") for name in SOURCE}


def in_order(quarantines: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    """The rows of each quarantine, in an order of their own."""
    return {
        name: sorted(repr([(key, value) for key, value in row.items() if key != "_batch"]) for row in rows)
        for name, rows in quarantines.items()
    }


def conserved(lakehouse: Lake, quarantines: dict[str, list[dict[str, Any]]]) -> None:
    """Counts and sums of the source, counted anew, against the last runs."""
    settings = lakehouse.settings()
    runs = {layer: run_log.last_run(settings.layer_path(layer), "cartoes") for layer in ("bronze", "silver", "gold")}
    fits = "vlr_transacao = round(vlr_transacao, 2) AND abs(vlr_transacao) < 1e8"
    ((total,),) = query(lakehouse.address, f"SELECT coalesce(sum(vlr_transacao), 0) FROM movimento WHERE {fits}")
    assert all(run is not None for run in runs.values())
    for name in SOURCE:
        ((rows,),) = query(lakehouse.address, f"SELECT count(*) FROM {name}")
        silver = runs["silver"].table(name)  # type: ignore[union-attr]
        assert rows == runs["bronze"].table(name).rows_out == silver.rows_in  # type: ignore[union-attr]
        assert rows == silver.rows_out + silver.set_aside + silver.copies
        assert silver.set_aside == len(quarantines[name])
    sums = {
        layer: run.table("movimento_flat" if layer == "gold" else "movimento").totals  # type: ignore[union-attr]
        for layer, run in runs.items()
    }
    assert sums["bronze"]["vlr_transacao"] == total
    assert sums["silver"]["vlr_transacao"] == sums["gold"]["vlr_transacao_movimento"]
    aside = sum((row["vlr_transacao"] or Decimal(0) for row in quarantines["movimento"]), Decimal(0))
    copies = runs["silver"].table("movimento").copies  # type: ignore[union-attr]
    assert copies or total == sums["silver"]["vlr_transacao"] + aside


@given(source=sources(), seed=st.integers(0, 2**32))
@properties(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_the_source_has_the_result_is_the_oracles_and_nothing_is_lost(
    made_up: Lake, source: dict[str, list[tuple[Any, ...]]], seed: int
) -> None:
    fill(made_up, source)
    made_up.run()
    note(f"{agree(made_up)} movements")
    quarantines = quarantined(made_up)
    conserved(made_up, quarantines)
    before = made_up.csv, in_order(quarantines)
    # Again: in another order, in other ranges and partitions, with a member whom nothing concerns.
    order = random.Random(seed)
    shuffled = {name: order.sample(rows, len(rows)) for name, rows in source.items()}
    shuffled["associado"].append((99, "Sem", "Conta", 1, None))
    fill(made_up, shuffled)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bronze_readers, "SMALL_BYTES", 4096)
        patch.setattr(bronze_readers, "RANGE_BYTES", 4096)
        made_up.spark.conf.set("spark.sql.shuffle.partitions", 1 + seed % 4)
        try:
            made_up.run()
        finally:
            made_up.spark.conf.set("spark.sql.shuffle.partitions", 1)
    assert (made_up.csv, in_order(quarantined(made_up))) == before
