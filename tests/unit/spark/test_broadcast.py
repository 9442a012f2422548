"""What a broadcast needs, beside what Spark was seen to need."""

from types import SimpleNamespace
from typing import Any

import pytest

from conf.settings import Settings, Spark
from pipelines.spark.broadcast import Size, available_bytes, needed_bytes

MB = 2**20

# Cards, and the smallest heap with which Spark broadcast them, in megabytes; with some 7 % less it ran out of memory.
MEASURED = [(400_000, 576), (780_000, 768), (810_000, 1280), (1_550_000, 1152), (1_650_000, 1792), (3_100_000, 2304)]


def tables(cards: int) -> list[Size]:
    """Cards with their accounts and members: eight bytes a column, and texts as long as a cooperative's."""
    accounts, members = cards * 6 // 8, cards * 5 // 8
    return [Size(cards, 88, 19 * cards), Size(accounts, 42, 11 * accounts), Size(members, 107, 16 * members)]


def needed_heap(cards: int) -> float:
    return 1.5 * needed_bytes(tables(cards)) / MB


@pytest.mark.parametrize(("cards", "heap"), MEASURED)
def test_no_less_is_asked_for_than_spark_was_seen_to_need(cards: int, heap: int) -> None:
    assert heap <= needed_heap(cards) < 2.5 * heap


def test_five_million_movements_are_joined_by_a_broadcast_on_any_machine() -> None:
    assert needed_heap(400_000) < 1536


def test_the_size_of_a_page_doubles() -> None:
    """A page of 512 MB has two million rows of 268 bytes, and no more."""
    assert needed_bytes([Size(2_020_000, 252, 0)]) - needed_bytes([Size(1_990_000, 252, 0)]) > 384 * MB


def session(heap: int) -> Any:
    """A classic session, as far as it is asked for its memory."""
    runtime = SimpleNamespace(maxMemory=lambda: heap * 8 // 9)
    sizes = SimpleNamespace(byteStringAsBytes=lambda text: int(text.removesuffix("m")) * MB)
    util = SimpleNamespace(util=SimpleNamespace(JavaUtils=sizes))
    java = SimpleNamespace(
        java=SimpleNamespace(lang=SimpleNamespace(Runtime=SimpleNamespace(getRuntime=lambda: runtime))),
        org=SimpleNamespace(apache=SimpleNamespace(spark=SimpleNamespace(network=util))),
    )
    conf = {"spark.executor.memory": "1024m"}
    return SimpleNamespace(_jvm=java, sparkContext=SimpleNamespace(getConf=lambda: conf))


@pytest.mark.parametrize(
    ("given", "heap", "expected"),
    [
        (Spark(driver_memory="3g"), 3072, 2048),
        (Spark(driver_memory="3g"), 1536, 1024),  # somebody else started the session
        (Spark(driver_memory="1536m"), 3072, 1024),
        (Spark(driver_memory="3g", master="yarn"), 3072, 1024 * 2 / 3),  # what the executors have
    ],
)
def test_the_smallest_heap_that_gets_the_table_counts(given: Spark, heap: int, expected: float) -> None:
    settings = Settings().model_copy(update={"spark": given})
    assert available_bytes(settings, session(heap * MB)) == pytest.approx(expected * MB, rel=0.001)
