"""A log line is one object."""

import json
import subprocess
from datetime import UTC, datetime, timedelta


def objects(result: "subprocess.CompletedProcess[str]") -> list[dict[str, object]]:
    """All lines, those of standard error first."""
    lines = [json.loads(line) for line in (result.stderr + result.stdout).splitlines()]
    for line in lines:
        assert datetime.now(UTC) - datetime.fromisoformat(line["time"]) < timedelta(minutes=10)
        assert line["level"] in ("info", "warning", "error") and line["message"] and "\n" not in line["message"]
    return lines
