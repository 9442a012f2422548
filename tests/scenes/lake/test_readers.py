"""Every table of every layer as others read it: no filter loses a row."""

from tests.support.lake import Lake
from tests.support.readers import lost


def test_delta_rs_finds_each_row_of_each_table_by_any_filter(nasty_lake: Lake) -> None:
    tables = [log.parent for log in nasty_lake.folder.glob("lake/**/_delta_log")]
    assert {"_runs", "_quality", "movimento", "movimento__quarantine", "movimento_flat"} <= {
        path.name for path in tables
    }
    assert [text for path in tables for text in lost(path)] == []
