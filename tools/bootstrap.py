"""Sets up what is missing: the virtual environment, its pinned packages, the Delta jars, Spark's archive. Needs only Python and Java.

Run by make with the system's Python, which may be an old one: plain syntax, standard library.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NoReturn

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REQUIREMENTS = os.path.join(PROJECT, "requirements")
VENV = os.path.join(PROJECT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
# Airflow's packages clash with a run's.
AIRFLOW_VENV = os.path.join(PROJECT, ".venv-airflow")
JARS = os.path.join(PROJECT, ".jars")
DELTA = "4.4.0"
PACKAGES = ("delta-spark_4.2_2.13", "delta-storage", "delta-kernel-api", "delta-kernel-defaults")
# Spark has its own Hadoop, log4j and the rest; a second one on the class path clashes.
NOT_WANTED = ("org.*:*", "com.*:*", "commons-*:*", "javax.*:*", "io.unitycatalog:*", "io.airlift:*", "io.delta:delta-kernel-unitycatalog")

# What each set-up does.
ENVIRONMENT, INSTALLATION, DELTA_JARS, ARCHIVE = "virtual environment", "packages", "Delta jars", "Spark's class archive"
STEPS = {"airflow": (ENVIRONMENT, INSTALLATION), "packages": (ENVIRONMENT, INSTALLATION, DELTA_JARS)}
ALL_STEPS = (ENVIRONMENT, INSTALLATION, DELTA_JARS, ARCHIVE)
SIZE = "some 600 MB to download, 1.2 GB on disk"  # of all steps, with the packages that a run needs


def main(what: str) -> None:
    if what == "doctor":
        doctor()
        return
    check_python()
    if what != "airflow":
        check_java()
    steps, venv = STEPS.get(what, ALL_STEPS), AIRFLOW_VENV if what == "airflow" else VENV
    if not os.path.exists(venv):
        say("%d steps, some minutes, once%s" % (len(steps), "" if what == "airflow" else "; " + SIZE))
    for number, step in enumerate(steps, 1):
        say("[%d/%d] %s" % (number, len(steps), step))
        if step == ENVIRONMENT:
            make_venv(venv)
        elif step == INSTALLATION and what == "airflow":
            install("airflow", venv=AIRFLOW_VENV)
        elif step == INSTALLATION:
            install("build")
            install("run", "--no-build-isolation")
            if what in ("dev", "bench", "audit"):
                install(what)
        elif step == DELTA_JARS:
            fetch_jars()
        else:
            prepare_spark()


def doctor() -> None:
    """What a run needs before anything is installed. Ends with code 2 and the mend when it lacks."""
    check_python()
    print("ok     Python: %d.%d" % sys.version_info[:2])
    print("ok     Java: %s" % check_java())
    if not os.path.exists(PYTHON):
        print("lacks  packages: run `make setup`")
        sys.exit(2)


def fail(text: str) -> NoReturn:
    sys.stderr.write("setup: %s\n" % text)
    sys.exit(2)


def say(text: str) -> None:
    sys.stderr.write("setup: %s\n" % text)
    sys.stderr.flush()


def check_python() -> None:
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        fail("Python 3.11, 3.12 or 3.13 is needed, this is %d.%d; install one and say `make setup PYTHON=python3.12`" % sys.version_info[:2])
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail("Python's venv is missing; install it (Debian, Ubuntu: apt install python%d.%d-venv)" % sys.version_info[:2])


def check_java() -> str:
    """Java's version."""
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    advice = "install one (Debian, Ubuntu: apt install openjdk-17-jre-headless) or point JAVA_HOME at it"
    try:
        output = subprocess.run([java or "java", "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode("utf-8", "replace")
    except OSError:
        fail("Java 17 or 21 is needed, none was found; %s" % advice)
    version = re.search(r'version "(\d+)', output)
    if not version or version.group(1) not in ("17", "21"):
        fail("Java 17 or 21 is needed, %s is %s; %s" % (java, version.group(1) if version else "none", advice))
    return version.group(1)


def make_venv(venv: str) -> None:
    wanted = "%d.%d" % sys.version_info[:2]
    python = os.path.join(venv, "bin", "python")
    if os.path.exists(python):
        ask = "import sys; print('%d.%d' % sys.version_info[:2])"
        try:
            made = subprocess.run([python, "-c", ask], stdout=subprocess.PIPE).stdout.decode().strip()
            # A set-up that was interrupted may have left it without pip.
            if subprocess.run([python, "-m", "pip", "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                made = ""
        except OSError:
            made = ""
        if made == wanted:
            return
    shutil.rmtree(venv, ignore_errors=True)
    created = subprocess.run([sys.executable, "-m", "venv", venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if created.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        fail("Python cannot make a virtual environment; install venv (Debian, Ubuntu: apt install python%s-venv)" % wanted)


def install(name: str, *options: str, venv: str = VENV) -> None:
    """Installs what a file of requirements pins, with uv if it is there and else, or if it fails, with pip."""
    python = os.path.join(venv, "bin", "python")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    uv = shutil.which("uv")
    tools = ([[uv, "pip", "install", "--python", python]] if uv else []) + [pip]
    what = list(options) + ["--require-hashes", "-r", os.path.join(REQUIREMENTS, name + ".txt")]
    shown = sys.stderr.isatty()
    for tool in tools:
        quiet = [] if shown else ["--quiet"]
        stdout, stderr = (sys.stderr, None) if shown else (subprocess.PIPE, subprocess.STDOUT)
        ran = subprocess.run(tool + quiet + what, stdout=stdout, stderr=stderr)
        if not ran.returncode:
            return
        if tool is not pip:
            say("uv could not install requirements/%s.txt; pip will try" % name)
    errors = [line for line in (ran.stdout or b"").decode("utf-8", "replace").splitlines() if line.startswith("ERROR")]
    reason = errors[0][:300] if errors else "pip failed" + ", as shown above" * shown
    fail("requirements/%s.txt: %s; check the network and the package index, then run it again" % (name, reason))


def checksums() -> "dict[str, str]":
    with open(os.path.join(REQUIREMENTS, "jars.sha256")) as file:
        pairs = [line.split() for line in file if line.strip()]
    return {name: checksum for checksum, name in pairs}


def right(path: str, checksum: str) -> bool:
    if not os.path.exists(path):
        return False
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest() == checksum


def fetch_jars() -> None:
    """Has Spark's own resolver fetch the jars, then takes those whose checksum is right."""
    wanted = checksums()
    if all(right(os.path.join(JARS, name), checksum) for name, checksum in wanted.items()):
        return
    with tempfile.TemporaryDirectory() as scratch:
        empty = os.path.join(scratch, "empty.py")
        open(empty, "w").close()
        command = [os.path.join(VENV, "bin", "spark-submit"), "--packages", ",".join("io.delta:%s:%s" % (name, DELTA) for name in PACKAGES)]
        command += ["--exclude-packages", ",".join(NOT_WANTED), "--conf", "spark.jars.ivy=%s" % scratch, empty]
        environment = dict(os.environ, PYSPARK_PYTHON=PYTHON, PYSPARK_DRIVER_PYTHON=PYTHON, SPARK_LOCAL_IP="127.0.0.1")
        environment.pop("SPARK_HOME", None)
        submit = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        fetched = os.path.join(scratch, "jars")
        for name, checksum in wanted.items():
            if not os.path.exists(os.path.join(fetched, name)):
                fail("the jar %s could not be fetched; check the network, then run it again" % name)
            if not right(os.path.join(fetched, name), checksum):
                fail("the jar %s does not have the SHA-256 that requirements/jars.sha256 names; it was not kept" % name)
        if submit.returncode:
            fail("Spark's resolver failed; check Java and the network, then run it again")
        if not os.path.isdir(JARS):
            os.makedirs(JARS)
        for name in wanted:
            shutil.copyfile(os.path.join(fetched, name), os.path.join(JARS, name))


def prepare_spark() -> None:
    """Has pipelines/commands/prepare.py lay out the classes that Spark loads, if they are not yet. Nothing depends on it."""
    if subprocess.run([PYTHON, "-m", "pipelines.commands.prepare"], cwd=PROJECT).returncode:
        say("Spark could not be prepared; it will start some seconds slower")


if __name__ == "__main__":
    main(sys.argv[1])
