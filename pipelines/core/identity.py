"""Who we are to others: the fingerprint of this software, the name of our connections."""

import hashlib
import os
import socket
from functools import cache

from conf.settings import PROJECT


@cache
def software(domain: str) -> str:
    """Fingerprint of our sources, other domains aside, and of the libraries that they are pinned to."""
    made = hashlib.sha256()
    files = [PROJECT / "requirements/run.txt", PROJECT / "requirements/jars.sha256"]
    for package in ("conf", "pipelines"):
        files += sorted(file for kind in ("*.py", "*.sql") for file in (PROJECT / package).rglob(kind))
    for layer in ("bronze", "silver", "gold"):
        files += sorted([*(PROJECT / layer).glob("*.py"), *(PROJECT / layer / domain).rglob("*.py")])
    for file in files:
        made.update(str(file.relative_to(PROJECT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return made.hexdigest()[:16]


# libpq reads these by itself and would mix them into a connection that our settings describe whole.
NAME = "PGAPPNAME"


def application_name() -> str:
    """How the server's administrator sees us, at most 63 bytes; an executor says the name of the run's driver."""
    return os.environ.get(NAME) or f"lakehouse {os.getpid()} {socket.gethostname()}"[:63]
