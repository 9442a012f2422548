"""The CSV is the same bytes however gold's files lie: in order, mixed up, or added to since the last run."""

import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from gold.cartoes.movimento_flat import TABLE
from pipelines.commands.reconcile import with_lake
from pipelines.core.errors import MemoryFault, StorageFault
from pipelines.core.texts import without_values
from pipelines.export import csv as export_csv
from pipelines.gold import job as gold_job
from pipelines.gold import proof
from pipelines.lake import delta, folders
from pipelines.spark import analysis, broadcast, frames, session
from tests.support.lake import ALL, Lake, last
from tests.support.oracle import agree
from tests.support.source import execute


def files_of(settings: Any) -> list[str]:
    path = folders.table_path(settings.gold_path, TABLE)
    return delta.file_paths(path, delta.version(path) or 0)


CUTS = (
    (("_id_movimento <= 70", "_id_movimento BETWEEN 71 AND 140", "_id_movimento > 140"), [1, 1, 1]),
    (("_id_movimento > 140", "_id_movimento <= 100", "_id_movimento BETWEEN 101 AND 140"), [1, 1, 1]),
    (("_id_movimento % 2 = 0", "_id_movimento % 2 = 1"), [2]),
    (("_id_movimento <= 50 OR _id_movimento = 90", "_id_movimento BETWEEN 51 AND 99 AND _id_movimento <> 90",
      "_id_movimento >= 100"), [2, 1]),
)  # fmt: skip


def test_the_csv_has_the_same_bytes_however_gold_is_split_into_files(keyed_lake: Lake, tmp_path: Path) -> None:
    settings, csv = keyed_lake.settings(), keyed_lake.csv
    for cut, groups in CUTS:
        for order in ("_id_movimento", "_id_movimento DESC", "hash(_id_movimento)"):
            made = [str(tmp_path / f"{'zyx'[index]}.parquet") for index in range(len(cut))]
            for file, where in zip(made, cut, strict=True):
                rows = f"SELECT * FROM read_parquet({files_of(settings)}) WHERE {where} ORDER BY {order}"
                duckdb.sql(f"COPY ({rows}) TO '{file}' (ROW_GROUP_SIZE 2048)")
            assert [len(group) for group in export_csv._segments(TABLE, made)] == groups
            with export_csv.draft(settings, TABLE, made) as draft:
                assert draft.temporary.read_bytes() == csv, (cut, order)
                assert (draft.rows, draft.sha256) == (200, folders.sha256(draft.temporary))
    assert [path.name for path in settings.export_path.iterdir()] == ["movimento_flat.csv"]


def test_a_record_of_any_length_is_read_back_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest record is longer than two of DuckDB's buffers."""
    for name in ("RECORD_BYTES", "BUFFER_BYTES"):
        monkeypatch.setattr(export_csv, name, 2**20)
    long = ('x""\n' * 300_000, 'y,""\n' * 600_000)
    cells = [["Ana"] * 3 + ["1.25", ""] + ["z"] * 6 for _ in range(4)]
    records = [[*row[:4], f'"{text}"', *row[5:]] for row, text in zip(cells, ["a", long[0], "b", long[1]], strict=True)]
    body, header = "".join(",".join(row) + "\n" for row in records), ",".join(export_csv.exported(TABLE)) + "\n"
    (tmp_path / "export").mkdir()
    part, fresh, given = (tmp_path / "export" / name for name in ("part", "fresh.csv", "given.csv"))
    part.write_text(body)
    back = export_csv.read_back(TABLE, part)
    assert (back.rows, back.sums) == (4, {"vlr_transacao_movimento": Decimal(5)})
    fresh.write_text(header + body)
    given.write_text(header + body.replace("1.25", "1.26", 1))
    gold = str(tmp_path / "gold.parquet")
    duckdb.sql(f"COPY (SELECT unnest(range(1, 5)) AS _id_movimento) TO '{gold}'")
    (wrong,) = with_lake._csv_differences(TABLE, fresh, given, [gold], tmp_path)
    assert "key 1" in wrong and "vlr_transacao_movimento" in wrong


def test_a_record_that_duckdb_takes_for_too_long_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "part").write_text(",".join(["1.25"] * 10) + ',"' + "x" * 17_000_000 + '"\n')
    assert export_csv.read_back(TABLE, tmp_path / "part").rows == 1


def test_a_csv_that_is_not_what_was_written_is_no_matter_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("1,ana maria\n")
    with pytest.raises(
        StorageFault, match="reading movimento_flat back: InvalidInputException; check what the"
    ) as caught:
        export_csv.read_back(TABLE, tmp_path / "part")
    assert "maria" not in without_values(str(caught.value.__cause__)) and "maria" in str(caught.value.__cause__)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of the files that each CSV was written from; those of a CSV that was copied are not among them."""
    numbers: list[int] = []
    append_files = export_csv._append_files

    def counted(csv: Any, table: Any, files: list[str], *more: Any) -> None:
        numbers.append(sum(duckdb.sql(f"SELECT count(*) FROM '{file}'").fetchall()[0][0] for file in files))
        append_files(csv, table, files, *more)

    monkeypatch.setattr(export_csv, "_append_files", counted)
    return numbers


def test_rows_behind_the_last_key_are_appended_to_an_untouched_csv(
    keyed_lake: Lake, tmp_path: Path, written: list[int]
) -> None:
    """A tampered CSV, a row in the middle and a changed row make it whole; the bytes are always those of a fresh one."""
    settings, all_rows = keyed_lake.settings(), files_of(keyed_lake.settings())
    path = folders.table_path(settings.gold_path, TABLE)
    DeltaTable(path).delete("_id_movimento IN (150, 151)")
    old = files_of(settings)
    with export_csv.draft(settings, TABLE, old) as draft, draft.published():
        run = last(keyed_lake, "gold").table("movimento_flat")
        columns = tuple(
            replace(column, total=str(draft.totals[column.name])) if column.total else column for column in run.columns
        )
        run = replace(run, version=DeltaTable(path).version(), rows_out=draft.rows, columns=columns)
        run = replace(run, csv_sha256=draft.sha256)
    written.clear()

    def rows(name: str, keys: str, where: str = "_id_movimento <= 2") -> str:
        """A data file with rows of the lake that have other keys."""
        query = f"SELECT * REPLACE ({keys} AS _id_movimento) FROM read_parquet({all_rows}) WHERE {where}"
        duckdb.sql(f"COPY ({query} ORDER BY _id_movimento) TO '{tmp_path / name}.parquet'")
        return f"{tmp_path / name}.parquet"

    behind, further = rows("behind", "500 + _id_movimento"), rows("further", "600 + _id_movimento")
    among = rows("among", "149 + _id_movimento")
    for files, expected in (
        ([*old, behind], 2),
        ([*old, further, behind], 4),
        ([*old, among], 200),
        ([*old, behind, among], 202),
        ([rows("less", "_id_movimento", "_id_movimento <> 5")], 199),
        ([rows("same", "_id_movimento", "true"), behind], 202),
    ):
        with export_csv.draft(settings, TABLE, files, run) as draft, export_csv.draft(settings, TABLE, files) as fresh:
            assert draft.temporary.read_bytes() == fresh.temporary.read_bytes(), files
            assert (draft.rows, draft.totals, draft.sha256) == (fresh.rows, fresh.totals, fresh.sha256)
        assert written[0] == expected, files
        written.clear()
    untouched = keyed_lake.csv
    (keyed_lake.folder / "export/movimento_flat.csv").write_bytes(untouched.replace(b"Ana", b"Eva", 1))
    with export_csv.draft(settings, TABLE, [*old, behind], run) as draft:
        assert b"Eva" not in draft.temporary.read_bytes() and draft.temporary.read_bytes().startswith(untouched)
    assert written == [200]


def test_a_run_appends_to_the_csv_that_the_run_before_wrote_or_makes_it_whole(
    keyed_lake: Lake, written: list[int]
) -> None:
    new = "INSERT INTO movimento VALUES ({}, 7.25, 'novo', '2024-05-01', 3)"
    for statements, expected in (
        ([new.format(700), "UPDATE movimento SET des_transacao = 'outro' WHERE id = 3", "DELETE FROM movimento WHERE id = 5"], 200),
        ([new.format(702), new.format(701)], 2),
    ):  # fmt: skip
        execute(keyed_lake.address, *statements)
        keyed_lake.run()
        assert written.pop() == expected, statements
        table_run = last(keyed_lake, "gold").table("movimento_flat")
        assert table_run.csv_sha256 == folders.sha256(keyed_lake.folder / "export/movimento_flat.csv")
    assert agree(keyed_lake) == 202


@pytest.mark.jvm
def test_small_tables_that_do_not_fit_into_memory_are_joined_without_a_broadcast(
    keyed_lake: Lake, any_spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is as much memory as the tables need at first; one long name makes them too large."""
    plans, needs, there = list[str](), list[float](), [math.inf]
    transformed, needed_bytes = analysis.transformed, broadcast.needed_bytes

    def noted(*arguments: Any) -> Any:
        frame = transformed(*arguments)
        plans.append(frame._jdf.queryExecution().optimizedPlan().toString())
        return frame

    def need(sizes: list[broadcast.Size]) -> float:
        needs.append(needed_bytes(sizes))
        return needs[-1]

    monkeypatch.setattr(gold_job, "transformed", noted)
    monkeypatch.setattr(broadcast, "needed_bytes", need)
    monkeypatch.setattr(broadcast, "available_bytes", lambda *_: there[0])
    keyed_lake.spark.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")
    try:
        keyed_lake.run("gold", full=ALL)
        there = [needs[0]]
        execute(keyed_lake.address, "UPDATE associado SET nome = repeat('x', 300000) WHERE id = 3")
        replace(keyed_lake, spark=any_spark).run("bronze", "silver")
        keyed_lake.run("gold", full=ALL)
        csv = keyed_lake.csv
        there = [needs[1]]
        keyed_lake.run("gold", full=ALL)
    finally:
        keyed_lake.spark.conf.unset("spark.sql.autoBroadcastJoinThreshold")
    assert ["strategy=broadcast" in plan for plan in plans] == [True, False, True]
    assert keyed_lake.csv == csv and b"xxx" in csv


def test_a_broadcast_that_finds_no_memory_is_tried_again_without_and_only_once(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, joins, failures = keyed_lake.csv, list[dict[str, str]](), [1]

    def noted(spark: SparkSession, conf: dict[str, str]) -> Any:
        joins.append(conf)
        return session.configured(spark, conf)

    def fail(*arguments: Any) -> list[str]:
        if failures[0]:
            failures[0] -= 1
            raise Py4JError("java.lang.OutOfMemoryError: Java heap space")
        return frames.write_files(*arguments)

    monkeypatch.setattr(gold_job, "configured", noted)
    monkeypatch.setattr(gold_job, "write_files", fail)
    keyed_lake.run("gold", full=ALL)
    assert joins == [{gold_job.NO_HINTS: "false"}, gold_job.ONLY_SHUFFLES] and keyed_lake.csv == csv
    assert "LAKEHOUSE_SPARK__DRIVER_MEMORY; trying again without a broadcast" in " ".join(
        capsys.readouterr().err.split()
    )
    failures[0] = 2
    with pytest.raises(MemoryFault, match="raise LAKEHOUSE_SPARK__DRIVER_MEMORY"):
        keyed_lake.run("gold", full=ALL)
    assert keyed_lake.csv == csv and agree(keyed_lake)


def test_gold_is_compared_with_silvers_rows_if_another_engine_made_its_checksums(
    keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "HASHING", "another")
    keyed_lake.run("gold", full=ALL)
    assert agree(keyed_lake) == 200
