"""The command line called in a process that goes on: the same words, and nothing left behind."""

import logging
import os
import signal
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from pipelines.cli.main import main
from pipelines.lake import run_log
from pipelines.spark.remote import is_remote
from tests.support.condominio import SALES
from tests.support.engine import REMOTE
from tests.support.lake import NOWHERE, Lake
from tests.support.process import Cli, clean_environment, connection_settings


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This process works in the folder, and with the environment, that a child process of `cli` would have."""
    monkeypatch.chdir(tmp_path)
    for name in {*os.environ} - {REMOTE}:
        monkeypatch.delenv(name)
    for name, value in clean_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def process_state() -> tuple[object, ...]:
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    streams = [getattr(stream, "errors", None) for stream in (sys.stdout, sys.stderr)]
    return [signal.getsignal(number) for number in signals], logging.root.manager.disable, streams, dict(os.environ)


@pytest.mark.parametrize(
    ("words", "code"), [(["status"], 0), (["--help"], 0), (["brnze"], 2), (["demo", "gold"], 2), (["silver"], 4)]
)
def test_output_and_exit_code_are_those_of_a_child_process(
    cli: Cli, inside: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int
) -> None:
    child = cli(*words, env={"PGTZ": "UTC"})
    inside.setenv("PGTZ", "UTC")  # the call takes it out of the environment
    before = process_state()
    for _ in range(2):
        assert main(words) == child.returncode == code
        assert capsys.readouterr() == (child.stdout, child.stderr)
    assert process_state() == before


def changeable(spark: SparkSession) -> dict[str, str | None]:
    """The settings of a session that a call sets in a session of its own, or for a while."""
    names = ("files.ignoreMissingFiles", "optimizer.disableHints", "shuffle.partitions")
    return {name: spark.conf.get(f"spark.sql.{name}", None) for name in names}


def test_a_given_session_does_all_the_work_and_is_left_as_it_was(
    condominio_lake: Lake, inside: pytest.MonkeyPatch, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_session(*_: object, **__: object) -> None:
        pytest.fail("another session was started")

    for module in ("spark.session", "commands.stream", "commands.reconcile.reconcile"):
        inside.setattr(f"pipelines.{module}.session", no_session)
    for name, value in (
        connection_settings(NOWHERE) | {"LAKEHOUSE_CALL__DOMAIN": "condominio", "LAKEHOUSE_CALL__ONCE": "1"}
    ).items():
        inside.setenv(name, value)
    condominio_lake.drop("transacoes_2.csv", SALES + "2,2,2024-03-02,20.00\n", 40)
    before, configuration = process_state(), changeable(spark)
    streams = [] if is_remote(spark) else [["stream"]]
    for words in (*streams, ["bronze", "silver", "gold"], ["export", "reconcile"]):
        assert main(words, spark) == 0, capsys.readouterr().err
    runs = run_log.read_runs(condominio_lake.settings().gold_path)
    assert [run.tables[0].rows_out for run in runs] == [1, 2, 2][: 2 + len(streams)]
    assert "everything agrees" in capsys.readouterr().out
    assert (process_state(), changeable(spark)) == (before, configuration)
    assert spark.range(3).count() == 3
