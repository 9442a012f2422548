"""The micro-batches of a stream in this process."""

import pytest

from pipelines.commands.stream import Batches, Stream
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault
from tests.support.lake import Lake


def test_what_cannot_pass_ends_a_stream_and_what_can_is_tried_again(
    condominio: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.commands.stream.POLL_SECONDS", 0)
    settings = condominio.settings(RETRY_SECONDS="1")
    batches = Batches(Stream(settings, "condominio", condominio.spark, True, Report(quiet=True)))
    tries: list[Exception] = [SourceFault("a file changed"), SourceFault("a file changed"), ContractFault("frozen")]
    monkeypatch.setattr(batches, "_run", lambda: (_ for _ in ()).throw(tries.pop(0)))
    with pytest.raises(ContractFault, match="frozen"):
        batches.run()
    monkeypatch.setattr(batches, "_run", lambda: (_ for _ in ()).throw(SourceFault("no right")))
    with pytest.raises(SourceFault, match="no right"):
        batches.run()
