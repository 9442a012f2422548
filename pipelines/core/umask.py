"""Nobody else may write what we write, whatever the umask of our caller is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

OTHERS_WRITE = 0o022


@contextmanager
def closed_to_others() -> Iterator[None]:
    """While the context lasts, group and others may not write to what this process and its children make."""
    before = os.umask(0o077)
    os.umask(before | OTHERS_WRITE)
    try:
        yield
    finally:
        os.umask(before)
