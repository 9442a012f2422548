"""A session starts with the class-data archive, or without a word about a damaged one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest

from conf.settings import PROJECT
from pipelines.spark import class_data_archive
from tests.support.process import clean_environment

MAIN = "org.apache.spark.deploy.SparkSubmit"


def java_command(options: str, log: Path) -> list[str]:
    """What Spark's launcher makes of a session's class path and Java options; Java logs the classes that it loads."""
    spark, home = Path(pyspark.__file__).parent, os.environ.get("JAVA_HOME")
    jars = os.pathsep.join(sorted(map(str, (PROJECT / ".jars").glob("*.jar"))))
    launcher = [
        f"{home}/bin/java" if home else "java",
        "-cp",
        f"{spark}/jars/*",
        "org.apache.spark.launcher.Main",
        MAIN,
    ]
    options = f"{options} {class_data_archive.COMPILE_LESS} -XX:+UseSerialGC -Xlog:class+load:file={log}"
    result = subprocess.run(
        [*launcher, "--driver-class-path", jars, "--driver-java-options", options, "--version"],
        env=os.environ | {"SPARK_HOME": str(spark), "SPARK_SCALA_VERSION": "2.13"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return result.stdout.decode().strip("\0\n").split("\0")


def started(command: list[str], log: Path) -> tuple[int, list[str], bool]:
    """Java's exit code, what it said, whether it used an archive."""
    log.unlink(missing_ok=True)
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    complaints = [
        line
        for line in result.stdout.splitlines() + result.stderr.splitlines()
        if "VM warning" in line or "[warn" in line or "[err" in line
    ]
    return result.returncode, complaints, "shared objects file (top)" in log.read_text()


def test_a_damaged_archive_is_left_out_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = class_data_archive.archive()
    assert true is not None and true.stat().st_size, "set-up makes it"
    folder, log = tmp_path / "with a blank", tmp_path / "classes"
    folder.mkdir()
    monkeypatch.setattr(class_data_archive, "JARS", folder)
    size = true.stat().st_size
    copy = folder / f"spark-{class_data_archive._key()}-{size}.jsa"
    shutil.copyfile(true, copy)
    assert str(copy) in class_data_archive.options()
    command = java_command(class_data_archive.options(), log)
    only_java = [*command[: command.index(MAIN)], "-version"]
    assert started(command, log) == (0, [], True)
    assert started(only_java, log) == (0, [], True)
    for place in (0, size // 2):
        with copy.open("r+b") as file:
            file.seek(place)
            kept = file.read(100)
            file.seek(place)
            file.write(bytes(255 - byte for byte in kept))
        assert started(only_java, log) == (0, [], False), place
        with copy.open("r+b") as file:
            file.seek(place)
            file.write(kept)
    os.truncate(copy, size // 2)
    assert class_data_archive.options() == ""


TWICE = """
import os
from pathlib import Path
from conf.settings import load
from pipelines.spark.session import session
log = "-Xlog:class+load:file={name} -Dours=1"
settings, _ = load({{"LAKEHOUSE_SPARK__CONF": '{{"spark.driver.extraJavaOptions": "' + log + '"}}'}}, base=Path())
for _ in range(2):
    with session(settings) as spark:
        java = spark._jvm.java.lang
        collectors = [bean.getName() for bean in java.management.ManagementFactory.getGarbageCollectorMXBeans()]
        low = spark.sql("SELECT lower('I\u00c3')").first()[0]
        print(java.System.getProperty("user.timezone"), java.System.getProperty("ours"), low, collectors[0])
    os.environ["JAVA_TOOL_OPTIONS"] = "-Duser.language=tr -XX:+UseSerialGC"
"""


@pytest.mark.long
def test_a_session_uses_the_archive_and_the_users_java_options_too_and_a_second_one_starts(tmp_path: Path) -> None:
    """A second collector would stop Java; its language would make another letter of the I."""
    log = tmp_path / "classes"
    result = subprocess.run(
        [sys.executable, "-c", TWICE.format(name=log)],
        cwd=tmp_path,
        env=clean_environment(tmp_path) | {"TZ": "America/Sao_Paulo", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    expected = "UTC 1 i\u00e3 PS MarkSweep\nUTC 1 i\u00e3 Copy\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")
    loaded = log.read_text().splitlines()
    assert sum("shared objects file (top)" in line for line in loaded) > 0.6 * len(loaded)
