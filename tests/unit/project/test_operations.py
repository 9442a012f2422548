"""What docs/operations.md tells to copy and to type is right: units, cron's lines, log rotation, commands."""

import getpass
import grp
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conf.settings import NAMES, PROJECT, SECRETS, load
from pipelines.cli.words import COMMANDS, Request, parse
from pipelines.run.call import read_env

DEPLOY = PROJECT / "deploy"
PAGE = (PROJECT / "docs/operations.md").read_text("utf-8")
UNITS = sorted(path for path in (DEPLOY / "systemd").iterdir() if path.suffix in (".service", ".timer"))
HOME = "/srv/lakehouse"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units_and_little_that_a_service_could_harm(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace(f"{HOME}/.venv", str(PROJECT / ".venv")).replace(HOME, str(tmp_path))
        (tmp_path / unit.name.replace("@", "@condominio")).write_text(text)
    units = sorted(path.name for path in tmp_path.iterdir())
    assert len(units) == 5
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(f"./{name}" for name in units)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    for name in (name for name in units if name.endswith(".service")):
        exposed = ["systemd-analyze", "security", "--offline=true", "--threshold=25", f"./{name}"]
        assert subprocess.run(exposed, cwd=tmp_path, capture_output=True, timeout=60).returncode == 0


def test_units_and_cron_call_targets_that_exist_each_with_its_own_user() -> None:
    services = {unit.name: unit.read_text() for unit in UNITS if unit.suffix == ".service"}
    calls = [
        re.findall(rf"^ExecStart={HOME}/\.venv/bin/python -m pipelines (.+)$", text, re.M) for text in services.values()
    ]
    lines = [line for line in (DEPLOY / "cron/lakehouse").read_text().splitlines() if not line.startswith("#")]
    field = r"(?:\*|\d+)"
    form = rf"{field} {field} {field} {field} {field}  lakehouse  cd {HOME} && \.venv/bin/python -m pipelines ([a-z ]+) >> (\S+) 2>&1"
    matches = [re.fullmatch(form, line) for line in lines]
    assert len(lines) == 2 and all(matches)
    calls += [[match[1]] for match in matches if match]
    parsed = [parse(words.replace("%i", "condominio").split()) for (words,) in calls]
    named = [[name for name in COMMANDS if isinstance(asked, Request) and name in asked.targets] for asked in parsed]
    assert sorted(map(" ".join, named)) == [
        *["bronze silver gold"] * 2,
        *["maintain"] * 2,
        "stream",
    ]
    assert all("\nUser=lakehouse\n" in text and "\nNoNewPrivileges=yes\n" in text for text in services.values())
    assert all(Path(match[2]).match("/var/log/lakehouse/*.log") for match in matches if match)


def test_what_systemd_gives_a_unit_are_settings_and_secrets_come_as_credentials() -> None:
    given = read_env(DEPLOY / "systemd/environment")
    commented = re.findall(r"^#(LAKEHOUSE_\w+)=(.*)$", (DEPLOY / "systemd/environment").read_text(), re.M)
    settings, warnings = load(given | dict(commented), base=PROJECT)
    assert warnings == [] and settings.postgres and settings.metrics.textfile
    assert not [name for name in (*given, *dict(commented)) if name.endswith(SECRETS)]
    credentials = {name for unit in UNITS for name in re.findall(r"^LoadCredential=(\w+):", unit.read_text(), re.M)}
    secrets = {name for name in NAMES if name.endswith(SECRETS)}
    assert {name.upper() for name in credentials} == secrets - {"LAKEHOUSE_METASTORE__PASSWORD"}  # which no unit asks
    writable = {"StateDirectory=lakehouse", f"ReadWritePaths=-{settings.metrics.textfile.parent}"}
    for unit in (unit for unit in UNITS if unit.suffix == ".service"):
        assert writable <= set(unit.read_text().splitlines())
    assert {path.parts[1:4] for path in (settings.bronze_path, settings.export_path)} == {("var", "lib", "lakehouse")}


@pytest.mark.skipif(
    not shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin"), reason="logrotate is not installed"
)
def test_logrotate_would_rotate_the_log(tmp_path: Path) -> None:
    user, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
    text = (DEPLOY / "logrotate/lakehouse").read_text().replace("lakehouse lakehouse", f"{user} {group}")
    rules, log = tmp_path / "rules", tmp_path / "lakehouse.log"
    rules.write_text(text.replace("/var/log/lakehouse/", f"{tmp_path}/"))
    rules.chmod(0o644)
    log.write_text("a line\n")
    command = [shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin") or "", "-s", str(tmp_path / "state")]
    tried = subprocess.run([*command, "-d", str(rules)], capture_output=True, text=True, timeout=60)
    assert tried.returncode == 0 and "error:" not in tried.stderr and f"considering log {log}" in tried.stderr
    subprocess.run([*command, "-f", str(rules)], check=True, timeout=60)
    assert (log.read_text(), (tmp_path / "lakehouse.log.1").read_text()) == ("", "a line\n")


def test_the_page_names_files_units_and_settings_that_there_are() -> None:
    links = re.findall(r"\]\(\.\./([\w./-]+)\)", PAGE)
    copied = re.findall(rf"{HOME}/(deploy/[\w./*-]+)|(?<![\w/])(deploy/[\w./*-]+)", PAGE)
    paths = [*links, *(left or other for left, other in copied)]
    assert len(paths) > 8 and all([*PROJECT.glob(path)] for path in paths)
    units = set(re.findall(r"\b(lakehouse[\w@-]*\.(?:service|timer))\b", PAGE))
    assert {name.replace("@condominio", "@") for name in units} <= {unit.name for unit in UNITS}
    named = set(re.findall(r"\bLAKEHOUSE_\w+", PAGE))
    assert named <= set(NAMES) | {"LAKEHOUSE_LOG"} and {name for name in NAMES if "ALERT" in name} <= named
    for words in re.findall(r"-m pipelines ([a-z ]+)'", PAGE):
        parse(words.split())


def test_each_exit_code_has_its_answer_on_the_page() -> None:
    readme = (PROJECT / "docs/reference.md").read_text("utf-8").split("## Exit codes")[1].split("## ")[0]
    codes = {code for line in re.findall(r"^\| ([\d, ]+) \|", readme, re.M) for code in line.split(", ")}
    listed = set(re.findall(r"^\| (\d+)", PAGE.split("## Exit codes")[1].split("## ")[0], re.M))
    assert codes - listed == {"130", "129"} and listed - codes == {"137"}
    assert all(code in PAGE.split("## Alerts")[1].split("## ")[0] for code in ("130", "129"))
