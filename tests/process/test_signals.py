"""A signal in the first second of a run, while bronze reads and the JVM starts."""

import os
import signal
import time

import pytest

from pipelines.core.names import LAYERS
from tests.support.lake import Lake
from tests.support.oracle import agree
from tests.support.process import family, gone, start
from tests.support.source import query


@pytest.mark.parametrize(
    ("number", "code", "group"),
    [pytest.param(signal.SIGINT, 130, True, marks=pytest.mark.long), (signal.SIGTERM, 143, False)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_while_bronze_reads_and_the_jvm_starts_leaves_nothing(
    bank: Lake, number: signal.Signals, code: int, group: bool
) -> None:
    process = start(bank, *LAYERS)
    while not (children := family(process)):
        time.sleep(0.01)
    os.killpg(process.pid, number) if group else process.send_signal(number)
    began = time.monotonic()
    _, output = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == code and "Traceback" not in output and "Error" not in output
    assert gone(children, 3)
    assert not [line for line in os.popen("ps -eo args") if str(bank.folder) in line]
    assert query(
        bank.address,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lakehouse %' AND pid <> pg_backend_pid()",
    ) == [(0,)]
    bank.run()
    agree(bank)
