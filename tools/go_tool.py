"""Runs a checker that is written in Go, as in `python tools/go_tool.py actionlint -color`.

It runs the program on PATH. If there is none, Go fetches the pinned source, checks it against its checksum database
and builds it.
Exit code 69 if there is neither.
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
    """Builds the pinned program in a folder. Returns why it could not; nothing if it could."""
    go = shutil.which("go")
    if not go:
        return f"neither {name} nor go is on PATH"
    environment = os.environ | {"GOBIN": folder, "CGO_ENABLED": "0"}
    install = subprocess.run([go, "install", PINS[name]], env=environment, capture_output=True, text=True)
    return "go cannot build it: " + install.stderr.strip().rpartition("\n")[2] if install.returncode else ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
