"""Other programs read the layers as docs/reading.md shows."""

import re

import duckdb
import pytest

from conf.settings import PROJECT
from tests.support.lake import Lake
from tests.support.source import execute

BLOCKS = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/reading.md").read_text("utf-8"), re.S)


def run(block: str, lakehouse: Lake, monkeypatch: pytest.MonkeyPatch) -> object:
    """What a block of the page finds in a lake: the number of rows."""
    names: dict[str, object] = {"spark": lakehouse.spark}
    monkeypatch.chdir(lakehouse.folder)
    code = (
        block.replace("lake/", f"{lakehouse.folder}/lake/") if "spark" in block else block
    )  # its JVM stays where it is
    exec(code, names)
    return names["rows"]


@pytest.mark.parametrize("library", ["duckdb", "polars", "pandas", "pyarrow"])
def test_a_program_without_spark_reads_gold(library: str, keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    if library == "duckdb":
        try:
            duckdb.load_extension("delta")
        except duckdb.Error:
            pytest.skip("DuckDB cannot fetch its extension")
    (block,) = (
        block
        for block in BLOCKS
        if (f"import {library}\n" in block and "cdf" not in block) or (library, "_runs" in block) == ("pyarrow", True)
    )
    assert run(block, keyed_lake, monkeypatch) == 200


@pytest.mark.jvm
def test_plain_spark_reads_gold(keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [run(block, keyed_lake, monkeypatch) for block in BLOCKS if "spark" in block] == [200]


def test_the_change_feed_has_what_a_night_changed(keyed_lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(
        keyed_lake.address, "DELETE FROM movimento WHERE id = 9; UPDATE movimento SET des_transacao = 'y' WHERE id = 10"
    )
    keyed_lake.run("bronze", "silver")
    (block,) = (block for block in BLOCKS if "load_cdf" in block)
    assert run(block, keyed_lake, monkeypatch) == 200 + 3
