"""Streams and change feeds follow tables by their paths, night after night, full ones among them.

Some are queries that live through all nights, some begin again after each where their checkpoint says.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.errors import StreamingQueryException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from pipelines.lake import run_log
from tests.support import engine
from tests.support.lake import ALL, Lake
from tests.support.prepared import Prepared
from tests.support.readers import by_delta_rs
from tests.support.source import execute

pytestmark = [pytest.mark.jvm, pytest.mark.long]

Row = dict[str, Any]

# Tables with their keys.
FOLLOWED = {
    "bronze/cartoes/movimento": ("id",),
    "silver/cartoes/movimento": ("id_movimento",),
    "gold/cartoes/movimento_flat": ("_id_movimento",),
}
FEED, RESUMED_FEED = "change feed", "change feed begun again each night"
WITHOUT_CHANGED_COMMITS, WITH_CHANGED_FILES = "stream without changed commits", "stream with changed files"
STREAMS = {
    FEED: {"readChangeFeed": "true"},
    WITHOUT_CHANGED_COMMITS: {"skipChangeCommits": "true"},
    WITH_CHANGED_FILES: {"ignoreChanges": "true"},
}

COME_CHANGE_AND_GO = """
INSERT INTO movimento SELECT i, 2, 'new', '2024-02-02', i % 20 + 1 FROM generate_series(201, 210) i;
UPDATE movimento SET vlr_transacao = vlr_transacao + {0}, des_transacao = NULL WHERE id % 40 = {0};
UPDATE conta SET tipo = 'outra {0}' WHERE id = {0}; DELETE FROM movimento WHERE id IN (1{0}, 205, 206);
UPDATE movimento SET id = 500 + {0} WHERE id = 7{0}"""
INCREMENTAL, FULL, FAILING = "incremental", "full", "failing before it is recorded"
# How each night runs, and what happened to the source before.
NIGHTS = (
    (INCREMENTAL, COME_CHANGE_AND_GO.format(1)),
    (INCREMENTAL, "SELECT 'nothing'"),
    (FULL, "DELETE FROM movimento WHERE id > 200; UPDATE associado SET nome = 'Eva' WHERE id = 3"),
    (INCREMENTAL, COME_CHANGE_AND_GO.format(2)),
    (FAILING, "UPDATE movimento SET vlr_transacao = 9 WHERE id % 50 = 4; DELETE FROM movimento WHERE id = 99"),
    (INCREMENTAL, "UPDATE movimento SET vlr_transacao = 1.25 WHERE id % 50 = 4"),
)


@dataclass(frozen=True)
class Night:
    """What a night left: of each table its rows and its ids as readers see them, and all that each stream has brought
    by then; the streams that ended."""

    tables: dict[str, list[Row]]
    ids: dict[str, set[str]]
    brought: dict[tuple[str, str], list[Row]]
    ended: list[str] = field(default_factory=list)

    @contextmanager
    def noting(self, stream: str) -> Iterator[None]:
        """Notes that a stream ended, if it does in this context."""
        try:
            yield
        except StreamingQueryException as error:
            self.ended.append(f"{stream}: {error}")


@dataclass(frozen=True)
class Followers:
    """The streams of a lake: the queries that live, and a folder for those that begin again."""

    spark: SparkSession
    lake: Path
    queries: dict[tuple[str, str], StreamingQuery]
    folder: Path

    def night(self) -> Night:
        """What the tables and the streams have now."""
        paths = {name: self.lake / name for name in FOLLOWED}
        night = Night({name: _rows(by_delta_rs(path)) for name, path in paths.items()}, {}, {})
        for (name, kind), query in self.queries.items():
            with night.noting(f"{kind} of {name}"):
                query.processAllAvailable()
            night.brought[name, kind] = _rows(self.spark.table(str(query.name)).toArrow())
        for name, path in paths.items():
            with night.noting(f"{RESUMED_FEED} of {name}"):
                self._resume(name)
            brought = self.spark.read.parquet(str(self.folder / name / "brought"))
            night.brought[name, RESUMED_FEED] = _rows(brought.toArrow())
            (detail,) = self.spark.sql(f"DESCRIBE DETAIL delta.`{path}`").collect()
            night.ids[name] = {str(DeltaTable(path).metadata().id), detail["id"]}
        return night

    def _resume(self, name: str) -> None:
        folder = self.folder / name
        stream = self.spark.readStream.format("delta").options(**STREAMS[FEED]).load(str(self.lake / name))
        to_files = stream.writeStream.format("parquet").option("checkpointLocation", str(folder / "checkpoint"))
        to_files.trigger(availableNow=True).start(str(folder / "brought")).awaitTermination()


def _following(spark: SparkSession, lake: Path, folder: Path) -> Followers:
    def started(name: str, kind: str) -> StreamingQuery:
        stream = spark.readStream.format("delta").options(**STREAMS[kind]).load(str(lake / name))
        to_memory = stream.writeStream.format("memory").queryName(f"{name} {kind}".translate(PLAIN))
        return to_memory.trigger(processingTime="1 second").start()  # by default each looks a hundred times a second

    return Followers(spark, lake, {(name, kind): started(name, kind) for name in FOLLOWED for kind in STREAMS}, folder)


PLAIN = str.maketrans("/ ", "__")


def _rows(table: pa.Table) -> list[Row]:
    rows: list[Row] = table.drop_columns({"_commit_timestamp"} & {*table.column_names}).to_pylist()
    return rows


@dataclass(frozen=True)
class Followed:
    """A lake with the first night, before the streams began to follow it, and the others."""

    lake: Path
    nights: list[Night]


@pytest.fixture(scope="module")
def followed(
    prepared: Callable[[str], Prepared],
    any_spark: SparkSession,
    jvm: SparkSession,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("followed")
    with prepared("keyed").copied(folder / "lake", any_spark) as lake, engine.using(remote=False):
        followers = _following(jvm, folder / "lake/lake", folder)
        try:
            nights = [followers.night()]
            for how, changes in NIGHTS:
                execute(lake.address, changes)
                _run(lake, how)
                nights.append(followers.night())
            yield Followed(followers.lake, nights)
        finally:
            for query in followers.queries.values():
                query.stop()


def _run(lake: Lake, how: str) -> None:
    if how != FAILING:
        lake.run(full=ALL if how == FULL else "")
        return
    lake.run("bronze")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(run_log, "record", lambda *_: 1 / 0)
        lake.run("silver")
    lake.run("silver")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(run_log, "record", lambda *_: 1 / 0)
        lake.run("gold")


def test_streams_survive_each_night(followed: Followed) -> None:
    assert [text for night in followed.nights for text in night.ended] == []


def test_a_table_is_the_same_table_after_each_night(followed: Followed) -> None:
    ids = {name: set[str]().union(*(night.ids[name] for night in followed.nights)) for name in FOLLOWED}
    assert {name: len(seen) for name, seen in ids.items()} == dict.fromkeys(FOLLOWED, 1)


@pytest.mark.parametrize("kind", [FEED, RESUMED_FEED])
@pytest.mark.parametrize("name", FOLLOWED)
def test_a_copy_that_applies_the_change_feed_is_the_table_after_each_night(
    followed: Followed, name: str, kind: str
) -> None:
    copy: dict[tuple[Any, ...], Row] = {}
    applied = 0
    for night in followed.nights:
        changes = sorted(night.brought[name, kind], key=_version)
        apply(changes[applied:], copy, FOLLOWED[name])
        applied = len(changes)
        assert copy == by_key(night.tables[name], FOLLOWED[name])


def apply(changes: list[Row], copy: dict[tuple[Any, ...], Row], keys: tuple[str, ...]) -> None:
    """Applies the changes of one version after the other to a copy, from which only rows that are there may go, and to
    which only such may come whose key is not there. An update has the row as it was and as it is."""
    for _, version in groupby(changes, _version):
        kinds: dict[str, list[Row]] = {kind: [] for kind in ("delete", "update_preimage", "insert", "update_postimage")}
        for change in version:
            kinds[change["_change_type"]].append({k: v for k, v in change.items() if k not in TECHNICAL})
        deleted, before, inserted, after = kinds.values()
        assert by_key(before, keys).keys() == by_key(after, keys).keys()
        for key, row in by_key([*deleted, *before], keys).items():
            assert copy.pop(key) == row
        for key, row in by_key([*inserted, *after], keys).items():
            assert copy.setdefault(key, row) is row


TECHNICAL = ("_change_type", "_commit_version")


def by_key(rows: list[Row], keys: tuple[str, ...]) -> dict[tuple[Any, ...], Row]:
    keyed = {tuple(row[key] for key in keys): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def _version(change: Row) -> int:
    return int(change["_commit_version"])


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_change_feed_of_an_incremental_night_has_only_rows_that_changed(followed: Followed, name: str) -> None:
    for before, night, (how, _) in zip(followed.nights, followed.nights[1:], NIGHTS, strict=False):
        if how != INCREMENTAL:
            continue
        old, new = (by_key(each.tables[name], FOLLOWED[name]) for each in (before, night))
        changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        brought = sorted(night.brought[name, FEED], key=_version)[len(before.brought[name, FEED]) :]
        assert len(brought) == sum((key in old) + (key in new) for key in changed)


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_stream_with_changed_files_brings_each_row_of_each_night(followed: Followed, name: str) -> None:
    for night in followed.nights:
        rows = night.brought[name, WITH_CHANGED_FILES]
        assert [row for row in night.tables[name] if row not in rows] == []


@pytest.mark.parametrize("name", FOLLOWED)
def test_spark_and_delta_rs_read_the_same_change_feed_from_the_first_version_on(
    followed: Followed, name: str, jvm: SparkSession
) -> None:
    path = followed.lake / name
    feed = jvm.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 0).load(str(path))
    by_spark, by_rust = _rows(feed.toArrow()), _rows(pa.table(DeltaTable(path).load_cdf(starting_version=0)))
    assert Counter(map(_as_text, by_spark)) == Counter(map(_as_text, by_rust))
    copy: dict[tuple[Any, ...], Row] = {}
    apply(sorted(by_spark, key=_version), copy, FOLLOWED[name])
    assert copy == by_key(followed.nights[-1].tables[name], FOLLOWED[name])


def _as_text(row: Row) -> str:
    return str(sorted(row.items()))
