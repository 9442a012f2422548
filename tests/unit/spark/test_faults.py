"""What errors of Spark mean to a person."""

from types import SimpleNamespace
from typing import Any

import pytest
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark import SparkContext
from pyspark.errors import PySparkException

from conf.settings import Settings
from pipelines.core import shortage
from pipelines.core.errors import Fault
from pipelines.run.call import ended
from pipelines.spark.faults import SETTING, not_started, spark_faults


class Process:
    """A JVM that has ended with a code, or runs if there is none."""

    def __init__(self, code: int | None) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def wait(self, _: float) -> int | None:
        return self.code


def fault(error: Exception) -> Fault:
    with pytest.raises(Fault) as raised, spark_faults():
        raise error
    assert ended(error) == (raised.value.kind, str(raised.value), raised.value.code)
    return raised.value


@pytest.mark.parametrize(
    "text",
    [
        "java.lang.OutOfMemoryError: Java heap space",
        "java.lang.OutOfMemoryError: GC overhead limit exceeded",
        "[UNABLE_TO_ACQUIRE_MEMORY] Unable to acquire 65536 bytes of memory, got 0. SQLSTATE: 53200",
        "Not enough memory to build and broadcast the table to all worker nodes.",
        "Cannot broadcast the table that is larger than 8.0 GiB: 9.0 GiB.",
        "Total size of serialized results of 4 tasks (1100.0 MiB) is bigger than spark.driver.maxResultSize 1024.0 MiB",
    ],
)
@pytest.mark.parametrize("kind", [Py4JError, PySparkException])
def test_a_heap_that_is_full_is_named_with_the_setting(kind: type[Exception], text: str) -> None:
    short = fault(kind(f"An error occurred while calling o1.parquet.\n: {text}"))
    assert (short.kind, short.code) == ("memory", 5) and f"raise {SETTING}" in str(short)


@pytest.mark.parametrize(
    "error",
    [
        Py4JNetworkError("Answer from Java side is empty"),
        Py4JError("org.apache.spark.sql.functions does not exist in the JVM"),
        ConnectionRefusedError(111, "Connection refused"),
        PySparkException("<_InactiveRpcError of RPC that terminated with: status = StatusCode.UNAVAILABLE"),
    ],
)
@pytest.mark.parametrize(
    ("code", "words"), [(-9, "was killed"), (52, "is full; raise"), (134, "ended with code 134 in the middle")]
)
def test_a_jvm_that_is_gone_is_named_with_the_setting(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    monkeypatch.setattr(SparkContext, "_gateway", SimpleNamespace(proc=Process(code)))
    gone = fault(error)
    assert (gone.kind, gone.code) == ("memory", 5) and words in str(gone) and SETTING in str(gone)


def test_errors_of_a_jvm_that_runs_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SparkContext, "_gateway", SimpleNamespace(proc=Process(None)))
    error: Any = Py4JError("org.example does not exist in the JVM")
    with pytest.raises(Py4JError) as raised, spark_faults():
        raise error
    assert raised.value is error and ended(error)[::2] == ("unexpected", 1)


EXITED = "[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port number."


@pytest.mark.parametrize(
    ("printed", "code", "kind", "words"),
    [
        ("", None, "memory", "Spark's JVM ended in the middle"),
        ("WARNING: Using incubator modules: jdk.incubator.vector\n", None, "memory", "Spark's JVM ended"),
        ("", -9, "memory", "Spark's JVM was killed"),
        (
            "Could not reserve enough space for 943718400KB object heap\n",
            None,
            "memory",
            "lower LAKEHOUSE_SPARK__DRIVER",
        ),
        (
            "[INVALID_DRIVER_MEMORY] System memory 93323264 must be at least 471859200.\n",
            0,
            "memory",
            f"raise {SETTING}",
        ),
        ("java.io.IOException: Too many open files\n", 0, "storage", "raise `ulimit -n`"),
        ("spark-class: line 71: java: command not found\n", None, "usage", "check Java"),
        ("Unrecognized VM option 'UseSomeGC'\n", None, "usage", "check Java"),
    ],
)
def test_a_jvm_that_does_not_start_is_explained_by_what_it_printed(
    monkeypatch: pytest.MonkeyPatch, printed: str, code: int | None, kind: str, words: str
) -> None:
    monkeypatch.setattr(shortage, "few_files", lambda: None)
    process: Any = None if code is None else Process(code)
    fault = not_started(Settings(), process, printed + EXITED)
    assert fault.kind == kind and words in str(fault)
