"""The micro-batches of a stream in this process."""

import os
import random
import shutil
from pathlib import Path

import pytest

from pipelines.commands.history import restore
from pipelines.commands.stream import Batches, Stream
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault
from tests.support.condominio import PARENTS, drop_all, everything, some_files
from tests.support.lake import Lake
from tests.support.process import Cli
from tests.support.stream import ENV, batch, taken_once


def test_a_permanent_fault_ends_a_stream_and_a_transient_one_is_tried_again(
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


def test_a_checkpoint_that_is_lost_or_knows_more_than_the_lake_does_no_harm(
    cli: Cli, condominio: Lake, tmp_path: Path
) -> None:
    drop_all(condominio, "1,1,2024-03-01,10.00")
    assert cli("stream", env=ENV | {"ONCE": "1"}).returncode == 0
    settings, before = condominio.settings(), everything(condominio)
    shutil.rmtree(settings.bronze_path / "condominio/_checkpoint")
    assert "condominio: 0 files ingested" in cli("stream", env=ENV | {"ONCE": "1"}).stderr
    assert everything(condominio) == before
    with Report() as report:
        restore(settings, "bronze/1", report)  # three files of four
    assert "condominio: 1 file ingested" in cli("stream", env=ENV | {"ONCE": "1"}).stderr
    assert everything(condominio) == before == everything(batch(condominio, tmp_path / "batch"))
    offsets = settings.bronze_path / "condominio/_checkpoint/offsets"
    for file in offsets.iterdir():
        file.write_bytes(b"") if file.name.isdigit() else file.unlink()
    condominio.drop("moradores_2.csv", PARENTS["moradores.csv"], 50)
    broken = cli("stream", env=ENV | {"ONCE": "1"})
    assert broken.returncode == 0 and "_checkpoint cannot be used; it starts over" in broken.stderr
    assert "condominio: 1 file ingested" in broken.stderr
    assert everything(condominio) == everything(batch(condominio, tmp_path / "again"))


def test_without_a_domain_of_files_it_says_what_to_type(cli: Cli) -> None:
    for domain in ("", "cartoes", "condominio,varejo"):
        result = cli("stream", env={"DOMAIN": domain})
        assert result.returncode == 2 and "make stream DOMAIN=condominio" in result.stderr
    assert cli("stream", env=ENV | {"ONCE": "yes"}).returncode == 2
    assert not (cli.folder / "lake").exists() and os.environ.get("DOMAIN") is None


def test_a_stream_with_once_takes_the_files_that_are_there_and_ends(cli: Cli, condominio: Lake, tmp_path: Path) -> None:
    for at, (name, text) in enumerate(some_files(random.Random(5), 8), 1):
        condominio.drop(name, text, at)
    condominio.drop("transacoes_x.csv", b"\x00\xff\xfe;;;\n\n\xff", 20)
    condominio.drop("moradores_x.csv", "", 21)
    for folder in ("a=1", "done"):
        (cli.folder / "landing/condominio" / folder).mkdir()
        (cli.folder / "landing/condominio" / folder / "moradores_y.csv").write_text(PARENTS["moradores.csv"])
    result = cli("stream", env=ENV | {"ONCE": "1"})
    assert result.returncode == 0, result.stderr
    progress = [line for line in result.stderr.splitlines() if ", batch " in line]
    assert [line.split(": ")[1].split(",")[0] for line in progress] == ["3 files"] * 3
    assert "condominio: 9 files ingested" in result.stderr
    assert "rows are set aside, more than LAKEHOUSE_QUALITY__MAX_QUARANTINED=0.05" in result.stderr
    assert "warning: bronze.transacoes: no line of transacoes_x.csv is a row: " in result.stderr
    assert everything(condominio) == everything(batch(condominio, tmp_path / "batch"))
    again = cli("stream", env=ENV | {"ONCE": "1"})
    assert again.returncode == 0 and "condominio: 0 files ingested" in again.stderr
    assert taken_once(condominio)
