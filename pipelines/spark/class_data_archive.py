"""Java's class-data archive: the classes that Spark loads, laid out once in set-up for each JVM to map (ADR 17)."""

import hashlib
import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path

from conf.settings import PROJECT

# Java compares paths: a link to the jars is the jars.
JARS = (PROJECT / ".jars").resolve()

COMPILE_LESS = "-XX:TieredStopAtLevel=1"


def archive() -> Path | None:
    """The archive of this JVM and these jars, if there is a complete one. An empty file says that it cannot be made."""
    files = JARS.glob(f"spark-{_key()}-*.jsa")
    # Java tests the checksums of what it maps, but a file that is too short kills it.
    return next((file for file in files if file.stem.endswith(f"-{file.stat().st_size}")), None)


def _key() -> str:
    """Identifies the JVM that `spark-submit` takes, and the jars by what Java tests of them: size and second."""
    spec = find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    given = os.environ.get("JAVA_HOME")
    java = Path(given, "bin/java") if given else Path(shutil.which("java") or "java")
    home = java.resolve().parent.parent
    jars = sorted([*(Path(spec.origin).resolve().parent / "jars").glob("*.jar"), *JARS.glob("*.jar")])
    known = hashlib.sha256()
    for file in (home / "release", home / "lib/server/libjvm.so", *jars):
        with suppress(OSError):
            status = file.stat()
            known.update(f"{file} {status.st_size} {status.st_mtime_ns // 10**9}\n".encode())
    return known.hexdigest()[:16]


def options() -> str:
    """Java's options for a session that uses the archive, silent about one that does not fit; empty without one."""
    file = archive()
    if file is None or not file.stat().st_size:
        return ""
    return f"-Xshare:auto {option('SharedArchiveFile', file)} -XX:+VerifySharedSpaces -Xlog:disable"


def option(name: str, file: Path) -> str:
    """Java's option that names a file, quoted: Spark splits a line of options as a shell does."""
    return shlex.quote(f"-XX:{name}={file}")


def make(train: Callable[[Path], object]) -> bool:
    """Lets `train` write the archive and removes any other. Returns whether it was written."""
    half = JARS / f"spark-{os.getpid()}.half"
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            train(half)
    except Exception:
        half.unlink(missing_ok=True)
    half.touch()
    for other in {*JARS.glob("spark-*")} - {half}:
        other.unlink()
    size = half.stat().st_size
    half.rename(JARS / f"spark-{_key()}-{size}.jsa")
    return size > 0
