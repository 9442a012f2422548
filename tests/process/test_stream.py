"""A stream of files gives what one batch load of the same files gives: in any order, killed anywhere, beside other runs."""

import contextlib
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from tests.support.condominio import PARENTS, SALES, everything, some_files
from tests.support.crash import STREAM_SCENARIOS, child
from tests.support.here import CliHere
from tests.support.lake import NOWHERE, Lake
from tests.support.process import clean_environment
from tests.support.stream import ENV, batch, taken_once

pytestmark = pytest.mark.jvm


@pytest.fixture
def lakehouse(tmp_path: Path, spark: SparkSession) -> Lake:
    """The folder that the command line works in."""
    return Lake(tmp_path, NOWHERE, spark, "condominio")


@dataclass
class Running:
    """A stream that goes on: what it has written so far, and whether it has ended."""

    text: Callable[[], str]
    ended: Callable[[], bool]

    def wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + 120
        while not ready():
            assert time.monotonic() < until and not self.ended(), self.text()
            time.sleep(0.1)


Meanwhile = Callable[[Running], None]


def in_a_process(lake: Lake, meanwhile: Meanwhile) -> str:
    """What a stream in a process of its own writes that SIGTERM ends."""
    log, command = lake.folder / "log", [sys.executable, "-u", "-m", "pipelines", "stream"]
    with log.open("w") as file:
        env = clean_environment(lake.folder) | ENV
        process = subprocess.Popen(command, cwd=lake.folder, env=env, stdout=file, stderr=file)
        try:
            meanwhile(Running(log.read_text, lambda: process.poll() is not None))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    return log.read_text()


def in_this_process(lake: Lake, meanwhile: Meanwhile) -> str:
    """What a stream in this thread and the tests' session writes; what happens meanwhile does so in another thread."""
    cli, finished, ended = CliHere(lake.folder, lake.spark), threading.Event(), threading.Event()

    class Requests(queue.Queue[object]):
        def get(self, block: bool = True, timeout: float | None = None) -> object:
            if finished.is_set():  # while this thread waits for no answer of the JVM
                signal.raise_signal(signal.SIGTERM)
            return super().get(block, timeout)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as beside:
        patch.setattr("pipelines.commands.stream.queue.Queue", Requests)
        patch.setattr("pipelines.commands.stream.LOOK_SECONDS", 0.5)
        working = beside.submit(meanwhile, Running(lambda: cli.errors.getvalue(), ended.is_set))
        working.add_done_callback(lambda _: finished.set())
        result = cli("stream", env=ENV)
        ended.set()
    working.result()
    assert result.returncode == 0
    return result.stderr


def upstream_runs(lake: Lake) -> list[int | None]:
    """What silver and gold were built from."""
    return [lake.last(layer).upstream_run for layer in LAYERS[1:]]


def last_runs(lake: Lake) -> list[int | None]:
    """What silver and gold would be built from."""
    return [lake.last(layer).run for layer in LAYERS[:-1]]


@pytest.mark.long
def test_a_stream_ends_while_spark_starts(tmp_path: Path) -> None:
    lake = Lake(tmp_path, NOWHERE, None, "condominio")  # type: ignore[arg-type]
    lake.drop("condominios.csv", PARENTS["condominios.csv"])
    in_a_process(lake, lambda stream: stream.wait(lambda: "watching" in stream.text()))


@pytest.mark.usefixtures("light_batches")
@pytest.mark.parametrize(
    ("running", "layers"), [(in_this_process, LAYERS[:1]), pytest.param(in_a_process, LAYERS, marks=pytest.mark.long)]
)
def test_files_that_come_while_it_runs_are_taken_beside_other_runs_until_a_signal_ends_it(
    cli_here: CliHere,
    condominio_lake: Lake,
    tmp_path: Path,
    running: Callable[[Lake, Meanwhile], str],
    layers: tuple[str, ...],
) -> None:
    """What runs beside it, and what is compared with a batch load, is bronze alone in `make test`."""
    lake = condominio_lake
    nowhere = cli_here("stream", env=ENV | {"LAKEHOUSE_LANDING_PATH": "nowhere"})
    assert nowhere.returncode == 3 and "there is no landing folder" in nowhere.stderr
    # Runs of one session would set its configuration at once; bronze needs none.
    other = lake if running is in_a_process else replace(lake, spark=None)  # type: ignore[arg-type]

    def meanwhile(stream: Running) -> None:
        def taken(number: int) -> bool:
            files = run_log.read_files(lake.settings().bronze_path, "condominio")
            return len(files) == number and upstream_runs(lake) == last_runs(lake)

        stream.wait(lambda: "no line of transacoes_2.csv is a row" in stream.text())
        for at, name in enumerate(("moradores", "imoveis"), 22):
            lake.drop(f"{name}_1.csv", PARENTS[f"{name}.csv"], at)
        other.run(*layers)
        lake.drop("transacoes_3.csv", SALES + "1,1,2024-03-03,30.00\n", 24)
        stream.wait(lambda: taken(9))
        empty.write_text(PARENTS["moradores.csv"])
        stream.wait(lambda: taken(10))

    lake.drop("transacoes_1.csv", SALES + "3,3,2024-03-01,10.00\n2,2,2024-03-02,x\n", 20)
    lake.drop("transacoes_2.csv", "imovel;morador\n", 21)
    empty = lake.drop("moradores_2.csv", "", 25)
    output = running(lake, meanwhile)
    assert "Traceback" not in output and "condominio: stopped; what was ingested is complete" in output
    assert upstream_runs(lake) == last_runs(lake)
    assert everything(lake, *layers) == everything(batch(lake, tmp_path / "batch", *layers), *layers)
    assert taken_once(lake)


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(name, marks=[pytest.mark.long] * scenario.long) for name, scenario in STREAM_SCENARIOS.items()],
)
def test_killed_between_any_two_steps_a_stream_goes_on_as_if_nothing_was(
    cli_here: CliHere, lakehouse: Lake, tmp_path: Path, scenario: str
) -> None:
    for at, (name, text) in enumerate(some_files(random.Random(9), 4), 1):
        lakehouse.drop(name, text, at)
    lakehouse.drop("transacoes.csv", SALES + "1,1,2024-03-01,10.00\n", 0)
    env = clean_environment(tmp_path) | ENV | {"LAKEHOUSE_CALL__ONCE": "1"}
    code, errors = child(scenario, "kill", tmp_path, env)
    assert code == -signal.SIGKILL, errors
    lakehouse.drop("moradores_zz.csv", PARENTS["moradores.csv"], 50)
    at_once = {"LAKEHOUSE_CALL__ONCE": "1", "LAKEHOUSE_STREAM__MAX_FILES_PER_TRIGGER": "9"}
    result = cli_here("stream", env=ENV | at_once)
    assert result.returncode == 0, result.stderr
    assert everything(lakehouse) == everything(batch(lakehouse, tmp_path / "batch"))
    assert taken_once(lakehouse)


@pytest.mark.long
def test_two_thousand_small_files_are_taken_without_loss_in_steady_memory(lakehouse: Lake, tmp_path: Path) -> None:
    dice = random.Random(1)
    kinds = ["condominios"] * 10 + ["imoveis"] * 100 + ["moradores"] * 200 + ["transacoes"] * 1690
    dice.shuffle(kinds)
    for at, kind in enumerate(kinds):
        header = (PARENTS | {"transacoes.csv": SALES})[f"{kind}.csv"].partition("\n")[0]
        row = {
            "condominios": f"C{at},Rua {at}, 1",
            "moradores": f"M{at},{dice.randint(1, 50)},2024-01-01",
            "imoveis": f"Casa,{dice.randint(1, 50)},{at}.50",
            "transacoes": f"{dice.randint(1, 400)},{dice.randint(1, 600)},2024-02-01,{at}.01",
        }[kind]
        lakehouse.drop(f"{kind}_{at:05d}.csv", f"{header}\n{row}\n{row}\n{row}\n", at)
    env = clean_environment(tmp_path) | {
        "LAKEHOUSE_CALL__DOMAIN": "condominio",
        "LAKEHOUSE_CALL__ONCE": "1",
        "LAKEHOUSE_SPARK__DRIVER_MEMORY": "600m",
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "pipelines", "stream"], cwd=tmp_path, env=env, stderr=log)
        memory = []
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                memory.append(sum(member.memory_info().rss for member in family))
            time.sleep(0.5)
    assert process.returncode == 0 and "condominio: 2,000 files ingested" in (tmp_path / "log").read_text()
    third = len(memory) // 3
    assert max(memory[2 * third :]) < 1.15 * max(memory[third : 2 * third])
    assert everything(lakehouse) == everything(batch(lakehouse, tmp_path / "batch"))
    assert taken_once(lakehouse)
