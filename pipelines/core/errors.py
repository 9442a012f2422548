"""Faults that a person can correct; each kind has its exit code."""


class Fault(Exception):
    """One clear sentence that names the thing and the remedy. No secret, no row value.

    `public_text`: the sentence without keys of rows, for when it names some; it may leave the machine.
    """

    code = 1
    kind = "unexpected"

    def __init__(self, text: str, public_text: str = "") -> None:
        super().__init__(text)
        self.public_text = public_text or text


class UsageFault(Fault):
    """Settings or usage."""

    code = 2
    kind = "usage"


class ClusterFault(UsageFault):
    """The Spark cluster does not answer, lacks what a run needs, or was lost."""

    kind = "cluster"


class SourceFault(Fault):
    """The source cannot be read, or is not what the contracts say."""

    code = 3
    kind = "source"


class TransientFault(SourceFault):
    """The source does not answer as it should now; trying again may help."""


class BusyFault(TransientFault):
    """The server has no connection left for us; those that are open work."""


class ContractFault(SourceFault):
    """A table or column that the contracts name is missing or of another family."""


class QualityFault(Fault):
    """A result would be wrong, or a layer that is needed has no complete run."""

    code = 4
    kind = "quality"


class StorageFault(Fault):
    """The lake or the export folder cannot be read or written."""

    code = 5
    kind = "storage"


class MemoryFault(Fault):
    """The machine, or Spark's JVM, has too little memory."""

    code = 5
    kind = "memory"


class LockedFault(Fault):
    """Another process works on this lake."""

    code = 6
    kind = "locked"
