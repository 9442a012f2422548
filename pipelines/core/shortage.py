"""What the system has too little of, known by its own words, whichever library repeats them."""

import re
import resource

from pipelines.core.errors import Fault, MemoryFault, StorageFault

MEMORY = re.compile(
    "Cannot allocate memory|failed to map segment|(m|re)alloc of size|OutOfMemory|Out of Memory Error"
    "|Could not reserve enough space|insufficient memory|can't start new thread|unable to create (new )?native thread"
    "|spawn.*thread.*Resource temporarily unavailable"
)
MENDS = {
    "Too many open files": "raise `ulimit -n`, or LimitNOFILE= of the systemd unit",
    "No space left on device": "make room on this disk",
    "Disk quota exceeded": "make room, or raise the quota of this user",
    "Read-only file system": "mount it for writing",
}


FEW_FILES = 512  # a JVM opens each jar of Spark


def fault_of(error: BaseException | str, what: str = "") -> Fault | None:
    """The fault that names what is short or refused, in the place `what`; None for any other error. Of the text, which
    may quote values, only the system's words are repeated."""
    text, place = str(error), f"{what}: " if what else ""
    if isinstance(error, MemoryError) or MEMORY.search(text):
        return MemoryFault(
            f"{place}this process gets too little memory; free some, raise `ulimit -v` or the container's limit, or "
            "lower LAKEHOUSE_SPARK__DRIVER_MEMORY"
        )
    return next((StorageFault(f"{place}{sign}; {mend}") for sign, mend in MENDS.items() if sign in text), None)


def few_files() -> Fault | None:
    """The fault for a limit of open files with which no JVM can load Spark, whatever it then says."""
    return fault_of("Too many open files") if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < FEW_FILES else None
