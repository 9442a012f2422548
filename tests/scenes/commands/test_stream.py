"""The micro-batches of a stream in this process."""

import os
import random
import shutil
from pathlib import Path

import pytest

from pipelines.commands.history import restore
from pipelines.commands.stream import Stream
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault
from tests.support.condominio import PARENTS, SALES, everything, some_files
from tests.support.lake import Lake
from tests.support.process import Cli
from tests.support.stream import ENV, batch, taken_once

pytestmark = pytest.mark.jvm


def test_a_permanent_fault_ends_a_stream_and_a_transient_one_is_tried_again(
    condominio: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.commands.stream.POLL_SECONDS", 0)
    settings = condominio.settings(RETRY_SECONDS="1")
    batches = Stream(settings, "condominio", condominio.spark, True, Report(quiet=True))
    tries: list[Exception] = [SourceFault("a file changed"), SourceFault("a file changed"), ContractFault("frozen")]
    monkeypatch.setattr(batches, "_run", lambda: (_ for _ in ()).throw(tries.pop(0)))
    with pytest.raises(ContractFault, match="frozen"):
        batches.run()
    monkeypatch.setattr(batches, "_run", lambda: (_ for _ in ()).throw(SourceFault("no right")))
    with pytest.raises(SourceFault, match="no right"):
        batches.run()


@pytest.mark.long
def test_a_checkpoint_that_is_lost_or_knows_more_than_the_lake_does_no_harm(
    cli: Cli, condominio_lake: Lake, tmp_path: Path
) -> None:
    checkpoint = condominio_lake.settings().bronze_path / "condominio/_checkpoint"

    def ingested() -> str:
        result = cli("stream", env=ENV | {"LAKEHOUSE_CALL__ONCE": "1"})
        assert result.returncode == 0 and checkpoint.is_dir(), result.stderr
        return result.stderr

    condominio_lake.drop("transacoes_2.csv", SALES + "2,2,2024-03-02,20.00\n", 40)
    condominio_lake.run("bronze")
    assert "condominio: 0 files ingested" in ingested()
    before = everything(condominio_lake)
    shutil.rmtree(checkpoint)
    assert "condominio: 0 files ingested" in ingested()
    assert everything(condominio_lake) == before
    with Report() as report:
        restore(condominio_lake.settings(), "bronze/1", report)  # four files of five
    assert "condominio: 1 file ingested" in ingested()
    assert everything(condominio_lake) == before
    for file in (checkpoint / "offsets").iterdir():
        file.write_bytes(b"") if file.name.isdigit() else file.unlink()
    condominio_lake.drop("transacoes_3.csv", SALES + "1,2,2024-03-03,30.00\n", 50)
    broken = ingested()
    assert "_checkpoint cannot be used; it starts over" in broken and "condominio: 1 file ingested" in broken
    assert [row["valor_transacao"] for row in condominio_lake.table("silver", "transacoes")] == [10, 20, 30]
    whole = batch(condominio_lake, tmp_path / "batch", "bronze")
    assert everything(condominio_lake, "bronze") == everything(whole, "bronze")


def test_without_a_domain_of_files_it_says_what_to_type(cli: Cli) -> None:
    for domain in ("", "cartoes", "condominio,varejo"):
        result = cli("stream", env={"LAKEHOUSE_CALL__DOMAIN": domain})
        assert result.returncode == 2 and "make stream DOMAIN=condominio" in result.stderr
    assert cli("stream", env=ENV | {"LAKEHOUSE_CALL__ONCE": "perhaps"}).returncode == 2
    assert not (cli.folder / "lake").exists() and os.environ.get("LAKEHOUSE_CALL__DOMAIN") is None


@pytest.mark.usefixtures("light_batches")
def test_a_stream_with_once_takes_the_files_that_are_there_and_ends(cli: Cli, condominio: Lake, tmp_path: Path) -> None:
    for at, (name, text) in enumerate(some_files(random.Random(5), 5), 1):
        condominio.drop(name, text, at)
    condominio.drop("transacoes_x.csv", b"\x00\xff\xfe;;;\n\n\xff", 20)
    condominio.drop("moradores_x.csv", "", 21)
    for folder in ("a=1", "done"):
        (cli.folder / "landing/condominio" / folder).mkdir()
        (cli.folder / "landing/condominio" / folder / "moradores_y.csv").write_text(PARENTS["moradores.csv"])
    (cli.folder / "landing/condominio/moradores_z.csv").symlink_to(cli.folder / "landing/condominio/moradores_x.csv")
    condominio.drop("moradores_\x1b[2J\n.csv", PARENTS["moradores.csv"], 22)
    result = cli("stream", env=ENV | {"LAKEHOUSE_CALL__ONCE": "1"})
    assert result.returncode == 0, result.stderr
    progress = [line for line in result.stderr.splitlines() if ", batch " in line]
    assert [line.split(": ")[1].split(",")[0] for line in progress] == ["3 files"] * 2
    assert "condominio: 6 files ingested" in result.stderr
    assert "rows are set aside, more than LAKEHOUSE_QUALITY__MAX_QUARANTINED=0.05" in result.stderr
    assert "warning: bronze.transacoes: no line of transacoes_x.csv is a row: " in result.stderr
    assert "not taken is moradores_z.csv in" in result.stderr and "\x1b" not in result.stderr
    assert r"not taken is moradores_\x1b[2J\n.csv in" in result.stderr
    assert everything(condominio, "bronze") == everything(batch(condominio, tmp_path / "batch", "bronze"), "bronze")
    again = cli("stream", env=ENV | {"LAKEHOUSE_CALL__ONCE": "1"})
    assert again.returncode == 0 and "condominio: 0 files ingested" in again.stderr
    assert taken_once(condominio)
