"""What a stream watches."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from pyspark.errors import PySparkException

from conf.settings import load
from pipelines.commands.stream import _landing, _watch
from pipelines.core.errors import Fault, SourceFault


@pytest.mark.parametrize("link", ["condominio", "condominio/link", "condominio/old/link"])
def test_a_link_to_a_folder_is_refused_because_spark_would_follow_it(tmp_path: Path, link: str) -> None:
    """One that leads to a folder above it would never end."""
    settings, _ = load({}, base=tmp_path)
    (tmp_path / "real/old").mkdir(parents=True)
    landing = tmp_path / "landing/condominio"
    (landing.parent if link == "condominio" else landing / "old").mkdir(parents=True)
    (tmp_path / "landing" / link).symlink_to(tmp_path / "real")
    with pytest.raises(SourceFault, match=f"landing/{link} is a link to a folder, which Spark would watch, too"):
        _landing(settings, "condominio")
    (tmp_path / "landing" / link).unlink()
    landing.mkdir(exist_ok=True)
    assert _landing(settings, "condominio") == landing


@pytest.mark.parametrize(
    ("text", "kind"), [("java.lang.OutOfMemoryError: Java heap space", "memory"), ("a damaged checkpoint", "storage")]
)
def test_a_query_that_finds_no_memory_says_nothing_against_its_checkpoint(tmp_path: Path, text: str, kind: str) -> None:
    settings, _ = load({}, base=tmp_path)
    (tmp_path / "landing/condominio").mkdir(parents=True)
    batches = MagicMock(settings=settings, domain="condominio", once=True)
    writer = batches.spark.readStream.format().schema().options().load().select().writeStream.foreachBatch().option()
    writer.trigger().start.side_effect = PySparkException(text)
    with pytest.raises(Fault) as raised:
        _watch(batches)
    assert raised.value.kind == kind
