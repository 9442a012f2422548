"""A layer as a Spark job: spark-submit starts the session, and the job uses it."""

import re
import subprocess
import sys

import pytest

from conf.settings import PROJECT
from tests.support.lake import Lake
from tests.support.process import BRIEF, clean_environment, connection_settings

README = (PROJECT / "README.md").read_text("utf-8")


@pytest.mark.long
def test_bronze_runs_in_the_session_of_spark_submit_as_the_readme_shows_it(keyed: Lake) -> None:
    (line,) = re.findall(r"^.*spark-submit .* pipelines/jobs/bronze\.py$", README, re.M)
    for name in (".jars", "pipelines", "deploy"):
        (keyed.folder / name).symlink_to(PROJECT / name)
    line = line.replace(".venv/bin/spark-submit", f"{PROJECT}/.venv/bin/spark-submit")
    environment = clean_environment(keyed.folder) | connection_settings(keyed.address)
    environment["JAVA_TOOL_OPTIONS"] = BRIEF["spark.driver.defaultJavaOptions"]
    for name in ("PYTHONPATH", "LAKEHOUSE_SPARK__CONF"):
        del environment[name]
    result = subprocess.run(
        ["sh", "-c", line.replace("$PWD/.venv/bin/python", sys.executable)],
        cwd=keyed.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"bronze +movimento +200 +200 +0 ", result.stdout)
    assert keyed.last("bronze").table("movimento").rows_out == 200
