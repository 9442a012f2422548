"""A damaged lake is named, table and file, and nothing is written; it is never papered over."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from gold.cartoes import movimento_flat
from pipelines.core.console import Report
from pipelines.core.errors import StorageFault
from pipelines.export.publish import export
from pipelines.lake import delta, run_log
from tests.support.here import CliHere
from tests.support.lake import Lake
from tests.support.process import Cli, connection_settings
from tests.support.source import execute, fill


def log(table: Path, version: int) -> Path:
    return table / f"_delta_log/{version:020d}.json"


def data(table: Path) -> Path:
    return Path(delta.file_paths(table, delta.version(table) or 0)[0])


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def without_adds(file: Path) -> None:
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines() if '"add"' not in line))


def foreign(file: Path) -> None:
    pq.write_table(pa.table({"x": range(1000)}), file)


def other_table(table: Path) -> None:
    shutil.rmtree(table)
    shutil.copytree(table.with_name("cartao"), table)


def same_name_elsewhere(table: Path) -> None:
    schema = DeltaTable(table).schema()
    shutil.rmtree(table)
    for _ in range(3):
        write_deltalake(table, pa.table(schema.to_arrow().empty_table()), mode="overwrite", name="silver.cartoes.conta")


def plain_parquet(table: Path) -> None:
    shutil.rmtree(table / "_delta_log")


def newer(table: Path) -> None:
    action = {"protocol": {"minReaderVersion": 9, "minWriterVersion": 9}}
    log(table, 3).write_text(json.dumps(action) + "\n")


def swapped(table: Path) -> None:
    """A commit of somebody else's in place of ours."""
    log(table, 2).write_text(log(table, 1).read_text())


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "first commit missing": (lambda t: log(t, 0).unlink(), r"conta: _delta_log/0{20}.json is missing"),
    "middle commit missing": (lambda t: log(t, 1).unlink(), r"conta: _delta_log/0{19}1.json is missing"),
    "last commit missing": (
        lambda t: log(t, 2).unlink(),
        r"conta: _delta_log/0{19}2.json is missing, which run 3 wrote",
    ),
    "middle commit empty": (lambda t: log(t, 1).write_text(""), r"conta: _delta_log/0{19}1.json is empty"),
    "last commit empty": (lambda t: log(t, 2).write_text(""), r"conta: _delta_log/0{19}2.json is empty"),
    "commit cut off": (lambda t: cut(log(t, 1)), r"conta: _delta_log/0{19}1.json is cut off"),
    "commit cut off at a line": (
        lambda t: without_adds(log(t, 2)),
        r"conta: version 2 has other files than run 3 left",
    ),
    "another's commit": (swapped, r"conta: version 2 has other files than run 3 left"),
    "log gone": (plain_parquet, r"conta holds files that are no Delta table"),
    "table gone": (shutil.rmtree, r"conta is gone"),
    "data file gone": (lambda t: data(t).unlink(), r"conta/part-\S+ is gone"),
    "data file cut off": (lambda t: cut(data(t)), r"conta/part-\S+ has \d+ bytes, the table's log says"),
    "data file empty": (lambda t: data(t).write_bytes(b""), r"conta/part-\S+ has 0 bytes"),
    "data file no Parquet": (lambda t: data(t).write_bytes(b"x" * data(t).stat().st_size), r"conta/part-\S+: "),
    "data file another's": (lambda t: foreign(data(t)), r"conta/part-\S+ has [\d,]+ bytes, the table's log says"),
    "another table": (other_table, r"conta: _delta_log is of another table, silver.cartoes.cartao, not silver"),
    "another lake's table": (same_name_elsewhere, r"conta: version 2 has other files than run 3 left"),
    "a newer protocol": (newer, r"conta: _delta_log/0{19}3.json is of a newer protocol"),
}


def another_table(table: Path) -> None:
    shutil.rmtree(table)
    write_deltalake(table, pa.table({"x": [1]}))


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@contextmanager
def undone(folder: Path, kept: Path) -> Iterator[None]:
    """Puts a folder back as it was when the context began."""
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(folder, kept)
    yield
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(kept, folder)


def test_a_damaged_table_is_named_with_its_file_and_nothing_is_written(nights_lake: Lake, tmp_path: Path) -> None:
    settings = nights_lake.settings()
    table = settings.silver_path / "cartoes/conta"
    for damage, message in DAMAGES.values():
        with undone(table, tmp_path / "kept"):
            damage(table)
            before = tree(nights_lake.folder)
            for layers in (("bronze", "silver", "gold"), ("silver",), ("gold",)):
                with pytest.raises(
                    StorageFault,
                    match=f"{message}.*; restore it from a backup, or delete .*silver and run `make silver`",
                ):
                    nights_lake.run(*layers)
            assert tree(nights_lake.folder) == before


def test_damage_in_other_layers_is_found_by_runs_and_by_export(nights_lake: Lake, tmp_path: Path) -> None:
    settings = nights_lake.settings()
    for layer, name in (("bronze", "movimento"), ("gold", "movimento_flat")):
        table = settings.layer_path(layer) / "cartoes" / name
        with undone(table, tmp_path / "kept"):
            cut(data(table))
            before = tree(nights_lake.folder)
            with pytest.raises(StorageFault, match=rf"{layer}/cartoes/{table.name}/part-\S+ has"):
                nights_lake.run()
            if layer == "gold":
                with pytest.raises(StorageFault, match=rf"{table.name}/part-\S+ has"), Report() as report:
                    export(settings, (movimento_flat.TABLE,), report)
            assert tree(nights_lake.folder) == before


RECORD_DAMAGES: tuple[tuple[Callable[[Path], object], str], ...] = (
    (lambda t: log(t, 2).write_text(""), r"silver/_runs: _delta_log/0{19}2.json is empty"),
    (lambda t: log(t, 1).unlink(), r"silver/_runs: _delta_log/0{19}1.json is missing"),
    (lambda t: cut(data(t)), r"silver/_runs/part-\S+ has"),
    (lambda t: log(t, 2).unlink(), r"silver/_runs: run 3, from which gold was built, is missing"),
    (another_table, r"_runs: _delta_log is of another table"),
)


def test_a_damaged_record_of_the_runs_is_named(nights_lake: Lake, tmp_path: Path) -> None:
    runs = nights_lake.settings().silver_path / run_log.RUNS
    for damage, message in RECORD_DAMAGES:
        with undone(runs, tmp_path / "kept"):
            damage(runs)
            before = tree(nights_lake.folder)
            with pytest.raises(StorageFault, match=message):
                nights_lake.run("silver", "gold")
            assert tree(nights_lake.folder) == before


def test_a_commit_of_rules_that_a_run_names_is_missed_and_one_that_no_run_names_is_not(
    nights_lake: Lake, tmp_path: Path
) -> None:
    rules = nights_lake.settings().silver_path / run_log.QUALITY
    head = delta.version(rules)
    assert head is not None and nights_lake.last("silver").quality_version == head
    with undone(rules, tmp_path / "kept"):
        log(rules, head).write_text("")
        before = tree(nights_lake.folder)
        with pytest.raises(StorageFault, match=rf"silver/_quality: _delta_log/0+{head}.json is empty; restore it"):
            nights_lake.run("silver", "gold")
        assert tree(nights_lake.folder) == before
    log(rules, head + 1).write_text('{"add": {"pa')
    nights_lake.run("silver")
    assert nights_lake.last("silver").quality_version == head + 1


def test_after_the_mend_that_the_message_names_the_lake_is_whole_and_numbers_rise(nights_lake: Lake) -> None:
    settings = nights_lake.settings()
    cut(data(settings.silver_path / "cartoes/conta"))
    shutil.rmtree(settings.silver_path)
    before = nights_lake.csv
    nights_lake.run("silver", "gold")
    run = run_log.last_run(settings.silver_path, "cartoes")
    assert nights_lake.csv == before and run is not None and run.run == 4


def test_a_table_that_is_not_ours_is_not_overwritten(lakehouse: Lake) -> None:
    fill(lakehouse)
    lakehouse.run("bronze")
    theirs = lakehouse.settings().silver_path / "cartoes/conta"
    write_deltalake(theirs, pa.table({"x": [1]}))
    before = tree(theirs)
    with pytest.raises(
        StorageFault, match=r"silver/cartoes/conta: another table is there, one without a name; move it"
    ):
        lakehouse.run("silver")
    assert {path: stat for path, stat in tree(theirs).items() if path in before} == before
    assert delta.version(theirs) == 0


def test_a_read_only_lake_is_exit_five_and_names_the_folder(nights_lake: Lake, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        shutil.copytree(nights_lake.folder, disk, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        result = CliHere(disk, nights_lake.spark)("bronze", env=connection_settings(nights_lake.address))
        assert (result.returncode, result.stderr.count("\n")) == (5, 1)
        assert f"bronze folder {disk}/lake/bronze: Read-only file system" in result.stderr
        assert CliHere(disk, nights_lake.spark)("status", env=connection_settings(nights_lake.address)).returncode == 0
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_damaged_lake_is_exit_five_with_one_line(cli: Cli, nights_lake: Lake) -> None:
    data(nights_lake.settings().bronze_path / "cartoes/conta").unlink()
    execute(nights_lake.address, "SELECT 1")
    for words in (("bronze",), ("maintain",), ("shell",)):
        result = cli(*words, env=connection_settings(nights_lake.address))
        assert (result.returncode, result.stderr.count("\n")) == (5, 1), result.stderr
        assert "conta/part-" in result.stderr and "is gone; restore it from a backup, or delete" in result.stderr
