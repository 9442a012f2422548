"""DuckDB inside a process that listens to signals, and its databases, which are used again."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import duckdb
import pytest

from pipelines.core.errors import StorageFault
from pipelines.lake import engine as lake_engine
from pipelines.lake.engine import Engine, count, engine


def test_a_signal_is_heard_while_duckdb_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    began = time.monotonic()
    try:
        with pytest.raises(SystemExit), engine("a long query") as connection:
            timer.start()
            connection.execute(
                "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE a.range * b.range % 7 = 3"
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - began < 10


def folder_of(database: Engine) -> str:
    row = database.execute("SELECT current_setting('temp_directory')").fetchone()
    assert row
    return str(row[0])


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The configuration of each database that is made; none is idle."""
    made, connect = list[dict[str, str]](), duckdb.connect

    def counted(config: dict[str, str]) -> duckdb.DuckDBPyConnection:
        assert threading.current_thread() is not threading.main_thread()  # it would hear signals
        made.append(config)
        return connect(config=dict(config))

    lake_engine._IDLE.clear()
    monkeypatch.setattr(lake_engine, "MEMORY", 100)
    monkeypatch.setattr(duckdb, "connect", counted)
    return made


def test_a_database_is_used_again_and_shows_nothing_of_its_earlier_use(
    databases: list[dict[str, str]], tmp_path: Path
) -> None:
    with engine("first", tmp_path / "1") as first:
        name = first.keep("SELECT 1 AS a")
        first.execute("CREATE TEMP MACRO own(x) AS x")
        assert folder_of(first) == str(tmp_path / "1")
    with engine("second", tmp_path / "2") as second, engine("beside it") as beside:
        assert folder_of(second) == str(tmp_path / "2") and folder_of(beside).startswith(
            f"{tempfile.gettempdir()}/.lake"
        )
        for sql in (f"FROM {name}", "SELECT own(1)"):
            with pytest.raises(duckdb.Error):
                second.execute(sql)
    assert len(databases) == 2


def test_a_database_that_failed_or_spilled_is_not_used_again(databases: list[dict[str, str]], tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match="failed: CatalogException"), engine("failed") as failed:
        failed.execute("FROM nowhere")
    with engine("spilled", tmp_path / "1") as spilled:
        spilled.keep("SELECT i, hash(i)::varchar || repeat('x', 40) FROM range(2_500_000) r(i)")
        assert list((tmp_path / "1").iterdir())
    with engine("next", tmp_path / "2") as following:
        assert folder_of(following) == str(tmp_path / "2")
    assert len(databases) == 3


def test_what_an_engine_spills_is_closed_to_others_and_never_in_the_working_folder(
    databases: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir(mode=0o555)
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with engine("spilling") as spilling:
        spilling.keep("SELECT i, hash(i)::varchar || repeat('x', 40) FROM range(2_500_000) r(i)")
        (folder,) = (tmp_path / "tmp").iterdir()
        assert [*folder.iterdir()] and folder.stat().st_mode & 0o7777 == 0o700
    assert databases and not [*(tmp_path / "work").iterdir()] and not [*(tmp_path / "tmp").iterdir()]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageFault, match="no folder can be made for temporary files; name one in TMPDIR"):
        engine("nowhere").__enter__()


def test_works_beside_each_other_see_one_database_and_all_end_when_one_fails() -> None:
    """The second waits for longer than the test lasts."""
    endless = "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE a.range * b.range % 7 = 3"
    began = time.monotonic()
    with engine("beside") as db:
        db.execute("CREATE TABLE seen AS SELECT 7 AS a")
        with db.side_by_side([lambda sibling: count(sibling, "seen")] * 5) as working:
            assert [work.result() for work in working] == [1] * 5
        db.execute("DROP TABLE seen")
    with pytest.raises(StorageFault), engine("beside") as db:
        works = [lambda sibling, sql=sql: sibling.execute(sql) for sql in ("FROM nowhere", endless)]
        with db.side_by_side(works) as working:
            working[0].result()
    assert time.monotonic() - began < 10


def test_works_that_are_about_to_begin_end_too() -> None:
    def slow(sibling: Engine) -> None:
        beginning.set()
        sibling.execute("SELECT 1")
        count(sibling, "range(200_000_000) a(i) WHERE hash(i) = hash(i + 1) OR md5(i::text) = ''")

    beginning, started = threading.Event(), time.monotonic()
    with engine("test") as db, pytest.raises(KeyboardInterrupt), db.side_by_side([slow]):
        beginning.wait()
        raise KeyboardInterrupt
    assert time.monotonic() - started < 5
