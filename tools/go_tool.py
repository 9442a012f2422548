"""Runs a checker that is written in Go, as in `python tools/go_tool.py actionlint -color`.

It is the one on PATH, or else the pinned one: Go fetches its source, proves it by its checksum database and builds it.
Exit code 69 where neither is to be had.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PINS = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "gitleaks": "github.com/zricethezav/gitleaks/v8@v8.30.1",
    "syft": "github.com/anchore/syft/cmd/syft@v1.54.1",
}
UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h


def main(name: str, *arguments: str) -> int:
    if program := shutil.which(name):
        return subprocess.run([program, *arguments]).returncode
    with tempfile.TemporaryDirectory() as folder:
        if reason := build(name, folder):
            print(f"{name} is skipped: {reason}", file=sys.stderr)
            return UNAVAILABLE
        return subprocess.run([str(Path(folder, name)), *arguments]).returncode


def build(name: str, folder: str) -> str:
    """Builds the pinned program in a folder. Says why it could not; nothing if it could."""
    go = shutil.which("go")
    if not go:
        return f"neither {name} nor go is on PATH"
    environment = os.environ | {"GOBIN": folder, "CGO_ENABLED": "0"}
    done = subprocess.run([go, "install", PINS[name]], env=environment, capture_output=True, text=True)
    return "go cannot build it: " + done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
