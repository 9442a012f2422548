"""What errors of Spark mean to a person: memory is short, its JVM was killed, a disk is full, a file is gone."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException

from conf.settings import Settings
from pipelines.core import shortage
from pipelines.core.errors import ClusterFault, Fault, MemoryFault, StorageFault, UsageFault
from pipelines.spark import cluster as spark_cluster

SPARK_ERRORS = (PySparkException, Py4JError, ConnectionError)  # the last when nobody listens where the JVM was

SETTING = "LAKEHOUSE_SPARK__DRIVER_MEMORY"

HEAP = re.compile(
    "OutOfMemoryError|Java heap space|GC overhead limit|OUT_OF_MEMORY|UNABLE_TO_ACQUIRE_MEMORY|INVALID_DRIVER_MEMORY"
    "|spark.driver.maxResultSize|Cannot broadcast the table|Not enough memory to"
    "|Could not execute broadcast|HashedRelation that is larger"
    "|[Nn]ot enough memory to build hash map|bytes memory to build hash relation|allocate memory to grow"
)

GONE = re.compile(
    "Answer from Java side is empty|Error while (sending|receiving)|trying to connect to the Java server"
    "|Connection (refused|reset)|Broken pipe|StatusCode.UNAVAILABLE|SparkContext was shut down|stopped SparkContext"
)

# What a JVM that does not start prints without a reason: it was killed, or did not get its memory.
NO_REASON = re.compile(
    r"WARNING|Picked up|Error: A fatal exception|\[JAVA_GATEWAY_EXITED\]|.*(bad array|Connection refused|Java side)"
)

KILLED, HEAP_IS_FULL = -9, 52  # what a JVM ends with; the second if a task of Spark finds no memory


def fault_of(error: BaseException) -> Fault | None:
    """The fault that an error of Spark, or of the connection to it, stands for; None for any other error."""
    text, place = str(error), "the disk of the lake or of the temporary folder"
    if fault := spark_cluster.executors_lost(text) or heap_fault(text) or shortage.fault_of(error, place):
        return fault
    process = getattr(SparkContext._gateway, "proc", None)
    if isinstance(error, ConnectionError) or GONE.search(text) or (process and process.poll() is not None):
        return ended(process)
    if any(mark in text for mark in ("FAILED_READ_FILE", "FileNotFoundException", "java.io.IOException")):
        file = re.search(r"file:(/[^\s,;]+)", text)
        return StorageFault(f"{file[1] if file else 'a file of the lake'} cannot be read; restore it from a backup")
    return None


@contextmanager
def spark_faults() -> Iterator[None]:
    """Turns errors of Spark that a person can mend into faults; other errors pass."""
    try:
        yield
    except SPARK_ERRORS as error:
        if fault := fault_of(error):
            raise fault from error
        raise


def not_started(settings: Settings, process: "subprocess.Popen[bytes] | None", text: str) -> Fault:
    """Why a session does not start; `text` is what its JVM printed, and PySpark's error. Without a process, the JVM
    ended before it could be called."""
    if fault := heap_fault(text) or shortage.fault_of(text) or shortage.few_files():
        return fault
    reasons = [line for line in text.splitlines() if not NO_REASON.match(line)]
    if exit_code(process) == KILLED if process else settings.log == "quiet" and not reasons:
        return ended(process)
    if process and not settings.spark.is_local:
        return ClusterFault(
            f"{settings.spark.master} accepts no application; it must be Spark {version('pyspark')}, "
            "and spark.authenticate the same there and here; LAKEHOUSE_LOG=debug shows Spark's log"
        )
    return UsageFault(
        "Spark does not start; check Java (17 or 21), LAKEHOUSE_SPARK__* and free memory; "
        "LAKEHOUSE_LOG=debug shows its log"
    )


def heap_fault(text: str) -> MemoryFault | None:
    return MemoryFault(f"Spark's JVM has too little memory for this; raise {SETTING}") if HEAP.search(text) else None


def exit_code(process: "subprocess.Popen[bytes]") -> int | None:
    """What a JVM ended with; None if it runs."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(2)
    return None


def ended(process: "subprocess.Popen[bytes] | None") -> MemoryFault:
    """The fault for a JVM that ended while it was needed; without a process, it ran elsewhere."""
    code = exit_code(process) if process else None
    if code == HEAP_IS_FULL:
        return MemoryFault(f"Spark's JVM ended because its memory is full; raise {SETTING}, then run it again")
    how = "was killed" if code == KILLED else "ended" if code is None else f"ended with code {code}"
    return MemoryFault(
        f"Spark's JVM {how} in the middle of its work, usually because the machine's memory is short: free some, or "
        f"lower {SETTING}, then run it again"
    )
