"""Who we are to others: the fingerprint of this software, the name of our connections."""

import hashlib
import os
import re
import socket
from functools import cache

from conf.settings import PROJECT, Postgres


@cache
def software(domain: str) -> str:
    """Fingerprint of our sources (Python and SQL), other domains aside, and of the libraries they are pinned to."""
    files = [PROJECT / "requirements/run.txt", PROJECT / "requirements/jars.sha256"]
    for kind in ("*.py", "*.sql"):
        for package in ("conf", "pipelines"):
            files += sorted((PROJECT / package).rglob(kind))
        for layer in ("bronze", "silver", "gold"):
            files += sorted([*(PROJECT / layer).glob(kind), *(PROJECT / layer / domain).rglob(kind)])
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(PROJECT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


# libpq reads this by itself; executors are given the name of the run's driver in it.
NAME = "PGAPPNAME"


def application_name(server: Postgres | None = None) -> str:
    """The name under which the server's administrator sees us, at most 63 bytes, which begins with the one that the
    settings give; of an executor, that of its driver."""
    given = re.sub("[^ -~]", "?", server.keywords.get("application_name", "") if server else "")
    return os.environ.get(NAME) or f"{given[:20] or 'lakehouse'} {os.getpid()} {socket.gethostname()}"[:63]
