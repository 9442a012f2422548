"""Whole runs of the real command line, killed, doubled and stopped at any moment, while others read."""

import csv
import io
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal

import pytest

from conf.settings import Postgres
from gold.cartoes import movimento_flat
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.export.publish import export
from pipelines.lake import delta, folders, run_log
from pipelines.lake.engine import engine
from tests.support.lake import Lake
from tests.support.oracle import agree
from tests.support.process import family, gone, meanwhile, start
from tests.support.source import ACCOUNTS, EACH, execute, query

TOTAL = ACCOUNTS * EACH


def teller(address: Postgres, chance: random.Random) -> Callable[[], None]:
    """One transaction: money moves, or a new member comes with account, card and an empty movement."""

    def work() -> None:
        payer, other = chance.sample(range(1, ACCOUNTS + 1), 2)
        amount = chance.randint(1, 5000) / 100
        move = "INSERT INTO movimento (vlr_transacao, des_transacao, data_movimento, id_cartao) VALUES"
        execute(address, f"{move} ({-amount}, 'de', now(), {payer}), ({amount}, 'para', now(), {other})")
        if chance.random() < 0.2:
            number = chance.randint(1000, 10**8)
            execute(
                address,
                f"""INSERT INTO associado VALUES ({number}, 'n', 's', 1, 'x@y') ON CONFLICT DO NOTHING;
                INSERT INTO conta VALUES ({number}, 'corrente', now(), {number}) ON CONFLICT DO NOTHING;
                INSERT INTO cartao VALUES ({number}, '1', 'x', now(), {number}, {number}) ON CONFLICT DO NOTHING;
                {move} (0, 'novo', now(), {number})""",
            )

    return work


def look(lakehouse: Lake) -> None:
    """What a reader finds: a whole gold run and a whole CSV, each with all the money, and nothing set aside."""
    settings = lakehouse.settings()
    file = settings.export_path / "movimento_flat.csv"
    if file.exists():
        rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"), newline="")))
        assert sum(Decimal(row["vlr_transacao_movimento"]) for row in rows) == TOTAL
    run = run_log.last_run(settings.gold_path, "cartoes")
    if run is None:
        return
    table_run = run.table("movimento_flat")
    files = delta.file_paths(settings.gold_path / "cartoes/movimento_flat", table_run.version)
    with engine("gold") as connection:
        sql = "SELECT count(*), sum(vlr_transacao_movimento) FROM read_parquet($files)"
        assert connection.execute(sql, {"files": files}).fetchone() == (table_run.rows_out, TOTAL)
    silver = run_log.last_run(settings.silver_path, "cartoes")
    assert silver is not None and not any(table.set_aside for table in silver.tables)


@pytest.mark.parametrize(("nights", "pause"), [(1, 0.3), pytest.param(10, 0.01, marks=pytest.mark.long)])
def test_money_that_moves_while_runs_go_on_is_in_every_version_of_gold(bank: Lake, nights: int, pause: float) -> None:
    """Runs in this process; a teller writes, a reader looks, a second one exports, all the while."""
    bank.run()

    def exported() -> None:
        with Report() as report:
            export(bank.settings(), (movimento_flat.TABLE,), report)

    with ExitStack() as stack:
        for work in (teller(bank.address, random.Random(1)), lambda: look(bank), exported):
            stack.enter_context(meanwhile(work, pause))
        until = time.monotonic() + 30
        while query(bank.address, "SELECT count(*) FROM movimento") == [(ACCOUNTS,)]:
            assert time.monotonic() < until, "no money moves"
            time.sleep(0.01)
        for _ in range(nights):
            bank.run()
    bank.run()
    agree(bank)
    settings = bank.settings()
    runs = run_log.read_runs(settings.gold_path)
    assert (
        len(runs) == 2 + nights and runs[0].table("movimento_flat").rows_out < runs[-1].table("movimento_flat").rows_out
    )
    for run in runs:
        assert run.table("movimento_flat").totals == {"vlr_transacao_movimento": TOTAL}


def killed_at_random(bank: Lake, times: int, seed: int) -> int:
    """Runs of the real command line, each killed after a random while; how many were killed before their end."""
    chance, killed = random.Random(seed), 0
    with meanwhile(teller(bank.address, chance)), meanwhile(lambda: look(bank)):
        for _ in range(times):
            process = start(bank, *LAYERS)
            try:
                process.communicate(timeout=chance.uniform(0.5, 14))
            except subprocess.TimeoutExpired:
                children = family(process)
                process.kill()
                process.communicate()
                killed += 1
                assert gone(children, 10), "the JVM outlives its run"
    bank.run()
    agree(bank)
    look(bank)
    with folders.temporary() as mine:
        assert [*mine.parent.glob(f".{folders.TEMPORARY}.{process.pid}.*")] == []
    return killed


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_many_runs_killed_at_random_moments_lose_nothing(bank: Lake, seed: int) -> None:
    assert killed_at_random(bank, 25, seed) > 5


def test_of_two_racing_processes_one_works_and_the_other_names_it(bank: Lake) -> None:
    both = [start(bank, "bronze"), start(bank, "bronze")]
    outputs = [process.communicate(timeout=60)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 0], [0, 6]), outputs
    run = run_log.last_run(bank.settings().bronze_path, "cartoes")
    assert run is not None and run.run == codes.count(0)
    if codes == [0, 6]:
        (loser,) = (text for process, text in zip(both, outputs, strict=True) if process.returncode == 6)
        (winner,) = (process for process in both if process.returncode == 0)
        assert f"process {winner.pid} on " in loser or "another process" in loser
    bank.run()
    agree(bank)


@pytest.mark.parametrize(
    ("number", "code", "until", "group"),
    [
        pytest.param(signal.SIGINT, 130, "bronze.movimento", False, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 143, "silver.associado", False, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 130, "silver.movimento", True, marks=pytest.mark.long),
        (signal.SIGINT, 130, "silver.associado", True),
        pytest.param(signal.SIGTERM, 143, "silver.conta", True, marks=pytest.mark.long),
    ],
    ids=["while the JVM starts", "in silver", "Ctrl-C in gold", "Ctrl-C in silver", "its whole group in silver"],
)
def test_a_signal_ends_spark_too_cleanly_and_within_ten_seconds(
    bank: Lake, number: signal.Signals, code: int, until: str, group: bool
) -> None:
    """Sent when a table is done; a terminal sends Ctrl-C to the JVM, too."""
    process = start(bank, *LAYERS)
    assert process.stderr is not None
    while until not in (line := process.stderr.readline()):
        assert line, "the run ended before"
    while not (children := family(process)):  # the JVM
        assert process.poll() is None, "the run ended before"
    os.killpg(process.pid, number) if group else process.send_signal(number)
    began = time.monotonic()
    _, output = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == code and "Traceback" not in output and "Error" not in output
    assert gone(children, 3)
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lakehouse %' AND pid <> pg_backend_pid()"
    assert query(bank.address, ours) == [(0,)]
    bank.run()
    agree(bank)
