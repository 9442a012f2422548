"""What somebody does to a table's protocol by hand is undone, whole: each reader knows the table again."""

import json
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from pipelines.lake import commits, delta
from tests.support.readers import written

OF_READERS = {"deletionVectors", "columnMapping", "typeWidening", "v2Checkpoint", "variantType", "timestampNtz"}
VECTOR = {"storageType": "i", "pathOrInlineDv": "wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", "sizeInBytes": 40}


def by_hand(path: Path, *lines: dict[str, Any]) -> None:
    at = (delta.version(path) or 0) + 1
    info = {"timestamp": 1, "operation": "SET TBLPROPERTIES", "engineInfo": "Apache-Spark/4.2.0"}
    text = "".join(f"{json.dumps(line)}\n" for line in ({"commitInfo": info}, *lines))
    (path / f"_delta_log/{at:020d}.json").write_text(text)


def raised(*features: str) -> dict[str, Any]:
    readers = sorted({*features} & OF_READERS)
    named = {"readerFeatures": readers, "writerFeatures": sorted(features)}
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7} | named}


LEGACY = {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}


@pytest.mark.parametrize("feature", [*sorted(OF_READERS - {"timestampNtz"}), "rowTracking", "legacy"])
@pytest.mark.parametrize("kind", ["date", "timestamp_ntz"])
def test_a_protocol_that_was_raised_is_lowered_again(feature: str, kind: str, tmp_path: Path) -> None:
    written(tmp_path, {"id": "bigint", "v": kind}, {"id": [1, 2], "v": [None, None]})
    before = delta.read_version(tmp_path, 0).protocol
    more = {"rowTracking": ["domainMetadata"]}.get(feature, [])
    there = ["timestampNtz"] if kind == "timestamp_ntz" else []
    if feature == "legacy" and there:
        pytest.skip("its types need features by name")
    newer = LEGACY if feature == "legacy" else raised(feature, "appendOnly", "invariants", *more, *there)
    by_hand(tmp_path, newer)
    assert commits.restore(tmp_path, 0, 2) == 2
    after = delta.read_version(tmp_path, 2).protocol
    assert (after.min_reader_version, after.min_writer_version) == (
        before.min_reader_version,
        before.min_writer_version,
    )
    assert {*(after.reader_features or ())} == {*(before.reader_features or ())}
    assert DeltaTable(tmp_path).to_pyarrow_dataset().to_table().num_rows == 2
    assert commits.restore(tmp_path, 0, 3) == 2  # once


def test_rows_that_count_as_deleted_by_hand_are_back(tmp_path: Path) -> None:
    written(tmp_path, {"id": "bigint"}, {"id": [1, 2]}, {"id": [3]})
    add = next(
        line["add"]
        for line in delta.last_commit(tmp_path)
        if '"numRecords": 2' in str(line.get("add", {}).get("stats"))
    )
    marked = add | {"deletionVector": VECTOR | {"cardinality": 1}}
    by_hand(tmp_path, raised("deletionVectors", "appendOnly", "invariants"),
            {"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}}, {"add": marked})  # fmt: skip
    assert commits.restore(tmp_path, 0, 2) == 2
    lines = delta.last_commit(tmp_path)
    (removed,) = [line["remove"] for line in lines if "remove" in line]
    (added,) = [line["add"] for line in lines if "add" in line]
    assert removed["deletionVector"] == marked["deletionVector"] and "deletionVector" not in added
    assert removed["path"] == added["path"] == add["path"]
    assert sorted(DeltaTable(tmp_path).to_pyarrow_dataset().to_table()["id"].to_pylist()) == [1, 2, 3]
