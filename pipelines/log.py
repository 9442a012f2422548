"""The log as JSON, for machines that read it: one object a line."""

import json
import os
from datetime import UTC, datetime
from typing import IO


def log_line(message: str, level: str = "info", **known: object) -> str:
    """When (UTC), how grave, what in one line, and what else is known of it. A text says itself how grave it is where
    it begins with `warning: `."""
    if message.startswith("warning: "):
        level, message = "warning", message.removeprefix("warning: ")
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "level": level, "message": " ".join(message.split())} | known)


def unread(stream: IO[str]) -> None:
    """Lets what is written to a stream of this process go nowhere: its reader has gone, and a run goes on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
