"""What errors of Spark mean to a person: memory is short, its JVM was killed, a disk is full, a file is gone."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException

from pipelines.core import shortage
from pipelines.core.errors import Fault, MemoryFault, StorageFault
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

KILLED, HEAP_IS_FULL = -9, 52  # what a JVM ends with; the second if a task of Spark finds no memory


def fault_of(error: BaseException) -> Fault | None:
    """The fault that an error of Spark, or of the connection to it, stands for; None for any other error."""
    text = str(error)
    if lost := spark_cluster.executors_lost(text):
        return lost
    if full := heap_fault(text):
        return full
    if fault := shortage.fault_of(error, "the disk of the lake or of the temporary folder"):
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
