"""Every table of every layer as others read it: no filter loses a row."""

import json

from conf.settings import PROJECT
from tests.support.lake import Lake
from tests.support.readers import lost


def test_delta_rs_finds_each_row_of_each_table_by_any_filter(nasty_lake: Lake) -> None:
    tables = [log.parent for log in nasty_lake.folder.glob("lake/**/_delta_log")]
    assert {"_runs", "_quality", "movimento", "movimento__quarantine", "movimento_flat"} <= {
        path.name for path in tables
    }
    assert [text for path in tables for text in lost(path)] == []


def test_each_commit_says_what_it_did_and_nothing_of_the_machine(nasty_lake: Lake) -> None:
    commits = [file.read_text() for file in nasty_lake.folder.glob("lake/**/_delta_log/*.json")]
    causes = [
        line["commitInfo"] for text in commits for line in map(json.loads, text.splitlines()) if "commitInfo" in line
    ]
    assert len(causes) == len(commits) > 10
    for cause in causes:
        assert cause["operation"] and cause["operationParameters"] and cause["engineInfo"] == "lakehouse"
        assert "numOutputRows" in cause["operationMetrics"] and cause["userMetadata"]
    assert not [text for text in commits if str(nasty_lake.folder) in text or str(PROJECT) in text]
