"""The CSV is the same bytes however gold's files lie: in order, mixed up, or added to since the last run."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from conf.settings import Settings
from gold.cartoes.movimento_flat import TABLE
from pipelines.commands.reconcile import with_lake
from pipelines.core.errors import MemoryFault, StorageFault
from pipelines.core.texts import without_values
from pipelines.export import csv as export_csv
from pipelines.gold import job as gold_job
from pipelines.gold import proof
from pipelines.lake import delta, folders, layout
from pipelines.lake.runs import CsvPart, TableRun
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
    (("_id_movimento % 2 = 0", "_id_movimento % 2 = 1"), [1, 2]),
    (("_id_movimento <= 50 OR _id_movimento = 90", "_id_movimento BETWEEN 51 AND 99 AND _id_movimento <> 90",
      "_id_movimento >= 100"), [1, 2, 1]),
)  # fmt: skip


def test_the_csv_has_the_same_bytes_however_gold_is_split_into_files(keyed_lake: Lake, tmp_path: Path) -> None:
    settings, csv = keyed_lake.settings(), keyed_lake.csv
    for cut, groups in CUTS:
        for order in ("_id_movimento", "_id_movimento DESC", "hash(_id_movimento)"):
            made = [str(tmp_path / f"{'zyx'[index]}.parquet") for index in range(len(cut))]
            for file, where in zip(made, cut, strict=True):
                rows = f"SELECT * FROM read_parquet({files_of(settings)}) WHERE {where} ORDER BY {order}"
                duckdb.sql(f"COPY ({rows}) TO '{file}' (ROW_GROUP_SIZE 2048)")
            assert [len(span.files) for span in layout.spans(TABLE, made)] == groups
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
def written(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The data files of each part that is written; those of parts that are copied are not among them."""
    parts: list[list[str]] = []
    copy = export_csv._copy

    def noted(table: Any, span: layout.Span, *more: Any) -> None:
        parts.append(sorted(Path(file).stem for file in span.files))
        copy(table, span, *more)

    monkeypatch.setattr(export_csv, "_copy", noted)
    return parts


@dataclass
class Night:
    """A lake whose CSV was written from four data files, each a part of it: keys 1 to 50 in `a`, and so on to 200."""

    settings: Settings
    folder: Path
    rows: list[str]
    run: TableRun
    written: list[list[str]]

    @property
    def csv(self) -> Path:
        return folders.csv_path(self.settings, TABLE)

    def file(self, name: str, where: str, text: str = "", key: str = "_id_movimento") -> str:
        """A data file with rows of the lake, each with another text before its key, or with other keys."""
        values = f"* REPLACE ('{text}' || _id_movimento AS des_transacao_movimento, {key} AS _id_movimento)"
        file = self.folder / f"{name}.parquet"
        duckdb.sql(f"COPY (SELECT {values} FROM read_parquet({self.rows}) WHERE {where} ORDER BY ALL) TO '{file}'")
        return str(file)

    def files(self, names: str) -> list[str]:
        return [str(self.folder / f"{name}.parquet") for name in names.split()]

    def require(
        self, files: list[str], expected: list[list[str]], appended: Callable[[int], object] = lambda _: None
    ) -> None:
        """The CSV of these files is that of a full write, for which only the `expected` parts were written."""
        self.written.clear()
        with export_csv.draft(self.settings, TABLE, files, self.run, appended) as draft:
            assert sorted(self.written) == expected
            with export_csv.draft(self.settings, TABLE, files) as fresh:
                assert draft.temporary.read_bytes() == fresh.temporary.read_bytes()
                assert replace(draft, temporary=fresh.temporary) == fresh
            assert draft.sha256 == folders.sha256(draft.temporary)


@pytest.fixture
def night(keyed_lake: Lake, tmp_path: Path, written: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> Night:
    monkeypatch.setattr(export_csv, "BLOCK_BYTES", 100)
    settings = keyed_lake.settings()
    (tmp_path / "files").mkdir()
    night = Night(settings, tmp_path / "files", files_of(settings), TableRun(TABLE.name, 0, 200, 200), written)
    for at, name in enumerate("abcd"):
        keys = f"_id_movimento BETWEEN {50 * at + 1} AND {50 * at + 50}"
        for version, text in (("", ""), ("2", 'longo, "línea"\n'), ("3", "-")):
            night.file(name + version, keys, text)
    with export_csv.draft(settings, TABLE, night.files("d a c b")) as draft, draft.published():
        assert [part.rows for part in draft.parts] == [50] * 4
        night.run = replace(night.run, csv_sha256=draft.sha256, csv_parts=draft.parts)
    return night


ALL_PARTS = [["a"], ["b"], ["c"], ["d"]]


def test_only_the_parts_whose_files_changed_are_written_and_the_others_copied_wherever_they_move(night: Night) -> None:
    for names in (
        "d c b a", "a2 b c d", "a b3 c d", "a b c d2", "a3 b c2 d", "a2 b3 c2 d3",
        "b c d", "a b d", "a b c", "a2 c3", "",
    ):  # fmt: skip
        night.require(night.files(names), [[name] for name in names.split() if name[1:]])


def test_a_part_is_written_again_if_rows_come_between_its_own_and_when_it_splits_or_joins(night: Night) -> None:
    night.file("before", "_id_movimento <= 2", key="-_id_movimento")
    night.file("behind", "_id_movimento <= 2", key="500 + _id_movimento")
    night.file("a7", "_id_movimento <= 50 AND _id_movimento <> 7")
    night.file("b7", "_id_movimento BETWEEN 51 AND 100 AND _id_movimento <> 70")
    night.file("between", "_id_movimento IN (7, 70)")
    night.file("b8", "_id_movimento BETWEEN 51 AND 60")
    night.file("b9", "_id_movimento BETWEEN 61 AND 99")
    night.file("cd", "_id_movimento > 100")
    for names, expected in (
        ("a b c d behind before", [["before"], ["behind"]]),
        ("a7 b7 between c d", [["a7"], ["a7", "between"], ["b7", "between"]]),
        ("a b8 b9 c d", [["b8"], ["b9"]]),
        ("a b cd", [["cd"]]),
    ):
        night.require(night.files(names), expected)


def test_files_whose_keys_nobody_tells_are_one_part_that_is_copied_when_they_stay(night: Night) -> None:
    pq.write_table(pq.read_table(night.files("d")[0]), night.folder / "e.parquet", write_statistics=False)
    files = night.files("a b c e")
    night.require(files, [["a", "b", "c", "e"]])
    with export_csv.draft(night.settings, TABLE, files) as draft, draft.published():
        night.run = replace(night.run, csv_parts=draft.parts)
    night.require(files[::-1], [])
    night.require(files[1:], [["b", "c", "e"]])


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at:][1:]


def test_a_previous_csv_that_is_damaged_cut_off_or_gone_costs_time_and_nothing_else(night: Night) -> None:
    intact, parts, files = night.csv.read_bytes(), night.run.csv_parts, night.files("a b c d")
    a, b, c, d, _ = accumulate((part.bytes for part in parts), initial=len(intact) - sum(part.bytes for part in parts))
    for content, expected in (
        (flipped(intact, c), [["c"]]),
        (flipped(flipped(intact, b - 1), len(intact) - 1), [["a"], ["d"]]),
        (flipped(intact, a - 1), []),  # of the header, which is never copied
        (intact[:c] + intact[d:] + intact[c:d], [["c"], ["d"]]),
        (intact[:d], ALL_PARTS),
        (b"", ALL_PARTS),
        (intact + b"\n", ALL_PARTS),
    ):
        night.csv.write_bytes(content)
        night.require(files, expected)
    night.csv.write_bytes(intact)
    night.require(files, ALL_PARTS[1:], lambda _: night.csv.unlink(missing_ok=True))
    assert not night.csv.exists()
    night.require(files, ALL_PARTS)


def test_nothing_is_copied_of_what_other_software_wrote_or_did_not_record(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, files = night.run, night.files("a b c d")
    night.run = replace(recorded, csv_parts=())
    night.require(files, ALL_PARTS)
    night.run = recorded
    night.require(files, [])
    monkeypatch.setattr(export_csv, "software", lambda domain: f"other {domain}")
    night.require(files, ALL_PARTS)


def test_sums_of_parts_that_have_more_digits_than_python_adds_by_itself_are_exact() -> None:
    parts = [CsvPart("", 1, 2, (amount,), "") for amount in (f"{10**35}.01", "0.02", "-0.01")]
    assert export_csv._totals(TABLE, parts) == (6, {"vlr_transacao_movimento": Decimal(f"{10**35}.02")})


def test_a_run_copies_the_parts_that_the_run_before_recorded(keyed_lake: Lake, written: list[list[str]]) -> None:
    new = "INSERT INTO movimento VALUES ({}, 7.25, 'novo', '2024-05-01', 3)"
    file = keyed_lake.folder / "export/movimento_flat.csv"
    for statements, rows, expected in (
        ([new.format(700), "UPDATE movimento SET des_transacao = 'outro' WHERE id = 3"], [200, 1], 2),
        (
            [new.format(702), new.format(701), "UPDATE movimento SET des_transacao = 'mais' WHERE id = 4"],
            [200, 1, 2],
            2,
        ),
        (["UPDATE movimento SET des_transacao = 'nada' WHERE id = 700"], [200, 1, 2], 1),
        (["DELETE FROM movimento WHERE id = 700"], [200, 2], 0),
        ([], [200, 2], 1),
    ):
        written.clear()
        if statements:
            execute(keyed_lake.address, *statements)
        else:
            file.write_bytes(flipped(file.read_bytes(), -1))
        keyed_lake.run()
        table_run = last(keyed_lake, "gold").table("movimento_flat")
        content, parts = file.read_bytes(), table_run.csv_parts
        assert ([part.rows for part in parts], len(written)) == (rows, expected), statements
        assert table_run.csv_sha256 == hashlib.sha256(content).hexdigest()
        end = len(content)
        for part in reversed(parts):
            assert export_csv.DIGEST(content[end - part.bytes : end]).hexdigest() == part.digest
            end -= part.bytes
        assert content[:end] == content.splitlines(keepends=True)[0]
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
