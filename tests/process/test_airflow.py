"""The night in Airflow: what the DAG is, what an exit code becomes, what reaches the command line."""

import ast
import csv
import json
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import psutil
import pytest

from conf.settings import PROJECT, Postgres
from pipelines.core import errors
from tests.support.docker_server import docker_server
from tests.support.process import clean_environment, connection_settings
from tests.support.source import execute, fresh_database

AIRFLOW = PROJECT / ".venv-airflow/bin"
DAG = PROJECT / "dags/lakehouse.py"

# Runs of the whole DAG in one process, one for each pair of parameters and environment; prints the tasks' states and tries.
NIGHTS = """
import json, os, sys
from datetime import timedelta
from airflow.sdk.exceptions import ParamValidationError
from lakehouse import gold

for task in gold.dag.tasks:
    task.retry_delay = timedelta(0)
    if task.task_id == os.environ.get("LIMITED"):
        task.execution_timeout = timedelta(seconds=4)
ended = []
for params, more in json.loads(sys.argv[1]):
    os.environ.update(more)
    try:
        run = gold.dag.test(run_conf=params)
        ended.append({task.task_id: [task.state, task.try_number] for task in run.get_task_instances()})
    except ParamValidationError:
        ended.append("refused")
print()
print(json.dumps(ended))
"""

PRETENDED = """#!/bin/sh
trap 'echo stopped >> calls; exit 143' TERM
printf '<%s>' "$@" >> calls; echo >> calls
sleep ${WAITS:-0} & wait $!
exit ${CODE:-0}
"""

SUCCEEDED, FAILED, NOT_BEGUN = ["success", 1], ["failed", 1], ["upstream_failed", 0]


@dataclass
class Airflow:
    """Airflow in child processes, whose command line is `.venv/bin/python -m pipelines` in `folder`."""

    folder: Path
    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    def start(self, *words: str | Path, **more: str) -> "subprocess.Popen[str]":
        environment = clean_environment(self.folder) | {
            "PYTHONPATH": f"{PROJECT}:{DAG.parent}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG.parent),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_LAKEHOUSE_PROJECT": str(self.folder),
        }
        return subprocess.Popen(
            words,
            cwd=self.home,
            env=environment | self.settings | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str | Path, **more: str) -> str:
        process = self.start(*words, **more)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
        return output

    def nights(self, *nights: tuple[dict[str, Any], dict[str, str]], **more: str) -> tuple[list[Any], str]:
        """The end of each night, one for each pair of parameters and environment, and the logs of all."""
        output = self.run(AIRFLOW / "python", "-c", NIGHTS, json.dumps(nights), **more)
        return json.loads(output.splitlines()[-1]), output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's own folder, with its database."""
    if not (AIRFLOW / "airflow").exists():
        pytest.skip("no Airflow here; `make airflow` or `make test-long` sets it up")
    home = tmp_path_factory.mktemp("airflow")
    Airflow(home, home).run(AIRFLOW / "airflow", "db", "migrate")
    return home


@pytest.fixture
def pretended(home: Path, tmp_path: Path) -> Airflow:
    """Airflow with a command line that only notes how it was called, waits, and ends with CODE."""
    program = tmp_path / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    program.write_text(PRETENDED)
    program.chmod(0o755)
    return Airflow(tmp_path, home)


@pytest.fixture(scope="module")
def source(server: Postgres) -> Iterator[Postgres]:
    with fresh_database(server) as address:
        yield address


@pytest.fixture(scope="module")
def real(home: Path, source: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Airflow with the real command line, after a night over two hundred fake movements."""
    folder = tmp_path_factory.mktemp("night")
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    airflow = Airflow(folder, home, {**connection_settings(source), "LAKEHOUSE_SEED__MOVIMENTOS": "200"})
    airflow.settings |= {"LAKEHOUSE_ROOT": str(folder / "lake"), "LAKEHOUSE_EXPORT_PATH": str(folder / "export")}
    airflow.run(folder / ".venv/bin/python", "-m", "pipelines", "seed", LAKEHOUSE_CALL__CONFIRM=source.database)
    (ended,), output = airflow.nights(({}, {}))
    assert ended == {"bronze": SUCCEEDED, "silver": SUCCEEDED, "gold": SUCCEEDED}, output
    assert "bronze.movimento: 200 rows" in output and "gold.movimento_flat: 200 rows" in output
    return airflow


def constants() -> dict[str, Any]:
    """What the DAG's file assigns to names, where it is a constant."""
    constants_by_name = {}
    for node in ast.parse(DAG.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                constants_by_name[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return constants_by_name


def test_the_dag_and_its_page_know_the_exit_codes_and_the_hour_of_the_readme() -> None:
    known, page = constants(), (PROJECT / "docs/airflow.md").read_text("utf-8")
    assert known["CAN_PASS"] == (errors.SourceFault.code, errors.LockedFault.code)
    faults = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.Fault)]
    for fault in faults:
        assert re.search(rf"\| .*`{fault.kind}`.* \| {fault.code} \|", known["DOC"]), fault.kind
        assert re.search(rf"^\| {fault.code} .*`{fault.kind}`", page, re.M), fault.kind
    (hour,) = re.findall(r'schedule="(.*)"', DAG.read_text("utf-8"))
    assert f"{hour}  cd /srv/lakehouse && make bronze silver gold" in (PROJECT / "README.md").read_text("utf-8")


def test_the_dag_loads_without_a_warning_and_is_what_its_page_says(home: Path) -> None:
    ask = """
import json
from lakehouse import bronze, gold
from airflow.serialization.serialized_objects import DagSerialization

dag = gold.dag
DagSerialization.to_dict(dag)
print(json.dumps({
    "order": [task.task_id for task in dag.topological_sort()],
    "after": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
    "dag": [dag.dag_id, str(dag.schedule), dag.catchup, dag.max_active_runs, sorted(dag.tags), bool(dag.doc_md)],
    "tasks": [[task.owner, task.retries, str(task.retry_delay), task.retry_exponential_backoff,
               str(task.execution_timeout), task.do_xcom_push, len(task.on_failure_callback)] for task in dag.tasks],
    "outlets": {task.task_id: [one.name for one in task.outlets] for task in dag.tasks},
    "params": dag.params.dump(),
    "runs": [gold.task_type, gold.operator_extra_links == (), [one.__name__ for one in type(gold).__mro__][1]],
    "fields": {name: getattr(bronze, name) for name in bronze.template_fields},
}))
"""
    airflow = Airflow(home, home, {"LAKEHOUSE_POSTGRES__PASSWORD": "segredo"})
    output = airflow.run(AIRFLOW / "python", "-W", "error", "-c", ask)
    dag = json.loads(output)  # nothing else was printed
    assert dag["order"] == ["bronze", "silver", "gold"]
    assert dag["after"] == {"bronze": [], "silver": ["bronze"], "gold": ["silver"]}
    assert dag["dag"] == ["lakehouse", "15 2 * * *", False, 1, ["delta", "lakehouse"], True]
    assert dag["tasks"] == [["lakehouse", 3, "0:05:00", 2.0, "2:00:00", False, 1]] * 3
    assert dag["outlets"] == {"bronze": [], "silver": [], "gold": ["movimento_flat"]}
    assert dag["params"] == {"full": False, "tables": None, "domain": None}
    assert dag["runs"][2] == "BashOperator" and "segredo" not in output
    assert dag["fields"]["bash_command"].startswith("exec .venv/bin/python -m pipelines bronze{{")

    airflow.settings |= {"AIRFLOW_LAKEHOUSE_RUNNER": "docker", "AIRFLOW_LAKEHOUSE_IMAGE": "lakehouse:1"}
    output = airflow.run(AIRFLOW / "python", "-W", "error", "-c", ask)
    dag = json.loads(output)
    assert dag["runs"][2] == "DockerOperator" and "segredo" not in output
    assert dag["fields"]["image"] == "lakehouse:1" and dag["fields"]["command"].startswith("bronze{{")

    wrong = airflow.start(AIRFLOW / "python", DAG, AIRFLOW_LAKEHOUSE_RUNNER="podman")
    assert "AIRFLOW_LAKEHOUSE_RUNNER is podman; say bash or docker" in wrong.communicate(timeout=100)[0]


def test_a_task_is_stopped_without_a_line_in_the_log(home: Path) -> None:
    """A signal's handler that logs hangs where the signal came while a line was written."""
    stop = """
import logging, subprocess
from lakehouse import bronze

logging.basicConfig(level=logging.INFO)
bronze.subprocess_hook.log.info("heard")
bronze.on_kill()  # before there is a process
process = bronze.subprocess_hook.sub_process = subprocess.Popen(["sleep", "600"], start_new_session=True)
bronze.on_kill()
print(process.wait(10))
bronze.on_kill()  # after it
"""
    heard, *output = Airflow(home, home).run(AIRFLOW / "python", "-c", stop).splitlines()
    assert "heard" in heard and output == [str(-signal.SIGTERM)]


@pytest.mark.long
def test_transient_failures_are_tried_again_others_fail_at_once_and_each_is_alerted_once(pretended: Airflow) -> None:
    alerts: list[dict[str, str]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

    codes = {1: 1, 2: 1, 3: 4, 4: 1, 5: 1, 6: 4, 143: 1}
    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as webhook:
        Thread(target=webhook.serve_forever).start()
        address = f"http://127.0.0.1:{webhook.server_port}/aviso"
        connection = json.dumps({"conn_type": "http", "host": address})
        ended, message = pretended.nights(
            *(({}, {"CODE": str(code)}) for code in codes), AIRFLOW_CONN_LAKEHOUSE_ALERT=connection
        )
        webhook.shutdown()
    after = {"silver": NOT_BEGUN, "gold": NOT_BEGUN}
    assert ended == [{"bronze": ["failed", tries]} | after for tries in codes.values()], message
    assert len(alerts) == len(codes) and all("lakehouse.bronze has failed" in alert["text"] for alert in alerts)
    assert "exit code 4" in alerts[3]["text"] and "exit code 3 or 6" in alerts[2]["text"]


@pytest.mark.long
def test_a_container_gets_settings_and_parameters_and_its_exit_code_counts_like_a_process(home: Path) -> None:
    airflow = Airflow(home, home, {"AIRFLOW_LAKEHOUSE_RUNNER": "docker", "LAKEHOUSE_POSTGRES__PASSWORD": "segredo"})
    with docker_server() as (address, asked):
        ended, output = airflow.nights(
            ({"full": True, "domain": "varejo"}, {}),
            ({"full": False, "domain": "a3"}, {}),  # the nights of a process share their parameters
            ({"full": False, "domain": "a4"}, {}),
            DOCKER_HOST=address,
        )
    after = {"silver": NOT_BEGUN, "gold": NOT_BEGUN}
    assert ended[0] == {"bronze": SUCCEEDED, "silver": SUCCEEDED, "gold": SUCCEEDED}, output
    assert ended[1:] == [{"bronze": ["failed", 4]} | after, {"bronze": FAILED} | after], output
    assert [container["Cmd"] for container in asked] == [
        *([layer, "--full", "--domain=varejo"] for layer in ("bronze", "silver", "gold")),
        *[["bronze", "--domain=a3"]] * 4,
        ["bronze", "--domain=a4"],
    ]
    assert "LAKEHOUSE_POSTGRES__PASSWORD=segredo" in asked[0]["Env"]
    assert asked[0]["Image"] == "lakehouse"
    (mount,) = asked[0]["HostConfig"]["Mounts"]
    assert (mount["Target"], mount["Source"], mount["Type"]) == ("/data", "lakehouse", "volume")
    assert re.search(r"said by \w+ --full --domain=varejo", output) and "segredo" not in output


@pytest.mark.long
def test_without_a_connection_a_failure_is_only_logged(pretended: Airflow) -> None:
    (ended,), output = pretended.nights(({}, {"CODE": "5"}))
    assert ended["bronze"] == FAILED
    assert "no alert is sent: there is no connection lakehouse_alert" in output


@pytest.mark.long
def test_parameters_reach_the_command_line_as_options_and_shell_words_do_not(pretended: Airflow) -> None:
    good = {"full": True, "tables": "conta,movimento", "domain": "cartoes"}
    hostile = ["conta; touch hurt", "$(touch hurt)", "`touch hurt`", "a b", "--set", "../x", "{{ dag }}", "a,", "A|b"]
    bad: list[dict[str, Any]] = [{name: text} for name in ("tables", "domain") for text in hostile] + [
        {"full": "1; touch hurt"},
        {"tables": 1},
    ]
    ended, output = pretended.nights(({}, {}), (good, {}), *((params, {}) for params in bad))
    assert ended[:2] == [{"bronze": SUCCEEDED, "silver": SUCCEEDED, "gold": SUCCEEDED}] * 2, output
    assert ended[2:] == ["refused"] * len(bad)
    assert (pretended.folder / "calls").read_text().splitlines() == [
        f"<-m><pipelines><{layer}>{options}"
        for options in ("", "<--full><--table=conta,movimento><--domain=cartoes>")
        for layer in ("bronze", "silver", "gold")
    ]
    assert not (pretended.folder / "hurt").exists()


@pytest.mark.long
def test_a_task_that_takes_too_long_is_stopped_and_not_tried_again(pretended: Airflow) -> None:
    (ended,), output = pretended.nights(({}, {"WAITS": "60"}), LIMITED="bronze")
    assert ended["bronze"] == FAILED and "stopped after 0:00:04" in output
    wait_for(lambda: (pretended.folder / "calls").read_text().endswith("<bronze>\nstopped\n"))
    assert not psutil.wait_procs(left(pretended), timeout=10)[1]


@pytest.mark.long
def test_a_night_in_airflow_ends_with_the_csv_and_leaves_no_process(real: Airflow) -> None:
    with (real.folder / "export/movimento_flat.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 200
    assert not left(real)


@pytest.mark.long
def test_a_source_that_does_not_answer_is_tried_four_times_and_the_log_says_why(real: Airflow) -> None:
    nowhere = {"LAKEHOUSE_POSTGRES__HOST": "127.0.0.1", "LAKEHOUSE_POSTGRES__PORT": "1"}
    elsewhere = {"LAKEHOUSE_ROOT": str(real.folder / "other"), "LAKEHOUSE_RETRY_SECONDS": "0"}
    (ended,), output = real.nights(({}, {}), **nowhere, **elsewhere)
    assert ended == {"bronze": ["failed", 4], "silver": NOT_BEGUN, "gold": NOT_BEGUN}
    assert len(re.findall(r"source: PostgreSQL 127\.0\.0\.1:1/.* Connection refused", output)) == 4, output


@pytest.mark.long
def test_a_run_that_would_set_too_much_aside_is_not_tried_again_and_leaves_the_csv(
    real: Airflow, source: Postgres
) -> None:
    file = real.folder / "export/movimento_flat.csv"
    before = file.read_bytes()
    execute(source, "ALTER TABLE movimento ALTER vlr_transacao DROP NOT NULL")
    execute(source, "UPDATE movimento SET vlr_transacao = NULL WHERE id = 1")
    (ended,), output = real.nights(({}, {}), LAKEHOUSE_QUALITY__MAX_QUARANTINED="0")
    assert ended == {"bronze": SUCCEEDED, "silver": FAILED, "gold": NOT_BEGUN}, output
    assert re.search(r"quality: silver\.movimento: .*would be set aside", output)
    assert file.read_bytes() == before


@pytest.mark.long
@pytest.mark.parametrize("stopped_by", ["time", "a signal"])
def test_a_task_that_is_stopped_stops_its_run_spark_too_and_leaves_the_csv(real: Airflow, stopped_by: str) -> None:
    file = real.folder / "export/movimento_flat.csv"
    before = file.read_bytes()
    nights = json.dumps([({"full": True}, {})])
    limited = "silver" if stopped_by == "time" else ""
    process = real.start(AIRFLOW / "python", "-c", NIGHTS, nights, LIMITED=limited)
    assert process.stdout is not None
    output = ""
    while "-m pipelines silver" not in output:
        line = process.stdout.readline()
        assert line, output
        output += line
    if stopped_by == "a signal":
        wait_for(lambda: any(process.name() == "java" for process in left(real)))
        process.send_signal(signal.SIGTERM)
    output += process.communicate(timeout=100)[0]
    (ended,) = json.loads(output.splitlines()[-1])
    assert ended == {"bronze": SUCCEEDED, "silver": FAILED, "gold": NOT_BEGUN}, output
    assert ("stopped after 0:00:04" if limited else "return code 143") in output
    assert not psutil.wait_procs(left(real), timeout=10)[1]
    assert file.read_bytes() == before


def left(airflow: Airflow) -> list[psutil.Process]:
    """The processes that work in the folder of the runs."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(airflow.folder):
                processes.append(process)
        except psutil.Error:
            continue
    return processes


@pytest.mark.long
def test_make_airflow_listens_on_loopback_only_runs_what_a_person_asks_for_and_waits_for_a_task(
    pretended: Airflow,
) -> None:
    """What make calls, on a free port and with its files elsewhere."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    own = {"AIRFLOW_HOME": str(pretended.folder / "own"), "AIRFLOW__API__PORT": address.rsplit(":")[-1]}
    # In the hours after 02:15 a DAG that is new and not paused runs by itself.
    noon = {"AIRFLOW__CORE__DEFAULT_TIMEZONE": f"Etc/GMT{time.gmtime().tm_hour - 12:+}"}
    more = own | noon | {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False"}
    process = pretended.start(AIRFLOW / "python", PROJECT / "tools/serve_airflow.py", WAITS="3", **more)
    try:
        reader = Thread(target=process.communicate)
        reader.start()
        wait_for(lambda: ask(f"{address}/api/v2/version"))
        listening = {
            place.laddr[0]
            for child in psutil.Process(process.pid).children(recursive=True)
            for place in child.net_connections("inet")
            if place.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        with pytest.raises(HTTPError, match="401"):
            ask(f"{address}/api/v2/dags")
        password = json.loads((pretended.folder / "own/simple_auth_manager_passwords.json.generated").read_text())
        token = ask(f"{address}/auth/token", {"username": "admin", "password": password["admin"]})["access_token"]
        runs = f"{address}/api/v2/dags/lakehouse/dagRuns"
        wait_for(lambda: ask(runs, token=token))
        with pytest.raises(HTTPError, match="400"):
            ask(runs, {"logical_date": None, "conf": {"tables": "$(touch hurt)"}}, token)
        run = ask(runs, {"logical_date": None, "conf": {"full": True, "tables": "conta"}}, token)["dag_run_id"]
        wait_for(lambda: ask(f"{runs}/{quote(run)}", token=token)["state"] == "success")
        ask(runs, {"logical_date": None}, token)
        wait_for(lambda: (pretended.folder / "calls").read_text().count("bronze") == 2)
    finally:
        process.terminate()
        reader.join(60)
    assert process.returncode == 0
    with closing(sqlite3.connect(pretended.folder / "own/airflow.db")) as database:
        states = database.execute("SELECT state FROM task_instance WHERE task_id = 'bronze'").fetchall()
    assert states == [("success",)] * 2  # of the run that was being made when Airflow was stopped, too
    layers = ("bronze", "silver", "gold")
    calls = [f"<-m><pipelines><{layer}><--full><--table=conta>" for layer in layers]
    assert (pretended.folder / "calls").read_text().splitlines()[:3] == calls
    assert stat.S_IMODE((pretended.folder / "own").stat().st_mode) == 0o700


def ask(address: str, body: dict[str, Any] | None = None, token: str = "") -> Any:
    """What Airflow's API answers, without any proxy."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = Request(address, json.dumps(body).encode() if body else None, headers)
    with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
        return json.loads(answer.read())


def wait_for(there: Callable[[], Any]) -> None:
    for _ in range(240):
        with suppress(OSError):
            if there():
                return
        time.sleep(0.5)
    raise AssertionError("waited two minutes in vain")
