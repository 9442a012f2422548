"""The nightly run in Airflow: bronze, silver, gold, each a call of the command line. docs/airflow.md installs it."""

import logging
import os
import shlex
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, BaseHook, Context, Param
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
    AirflowTaskTimeout,
)

DOC = """
Copies the sources to **bronze**, cleans that to **silver**, builds **gold** and `movimento_flat.csv` from it.
A task is one call of `python -m pipelines`. If it fails, the last good tables and CSV stay; fix the cause and run it
again. Its log ends with a line that names the reason.

| the log says | code | what to do |
|---|---|---|
| `source` | 3 | it is retried; after that, look at the server or the landing folder |
| `locked` | 6 | it is retried; another run is working on the lake |
| `settings`, `usage`, `cluster` | 2 | correct the setting, parameter or cluster that the line names |
| `quality` | 4 | `make quality`; correct the rows at the source, or the rule |
| `storage` | 5 | make room on the disk, or fix its permissions |
| `memory` | 5 | give Spark or the machine more memory, as the line says |
| `unexpected` | 1 | `LAKEHOUSE_LOG=debug` shows where |
| nothing | 143 | a person stopped it, or it took two hours |
"""

RUNNER = os.environ.get("AIRFLOW_LAKEHOUSE_RUNNER") or "bash"
PROJECT = os.environ.get("AIRFLOW_LAKEHOUSE_PROJECT") or str(Path(__file__).resolve().parents[1])
IMAGE = os.environ.get("AIRFLOW_LAKEHOUSE_IMAGE") or "lakehouse"
DATA = os.environ.get("AIRFLOW_LAKEHOUSE_DATA") or "lakehouse"
ALERT = "lakehouse_alert"

CAN_PASS = (3, 6)
NAMES = "^[a-z0-9_]+(,[a-z0-9_]+)*$"
PARAMS = {
    "full": Param(False, type="boolean", description="build all tables in full, or those below"),
    "tables": Param(None, type=["null", "string"], pattern=NAMES, description="e.g. conta,movimento, only with full"),
    "domain": Param(None, type=["null", "string"], pattern=NAMES, description="e.g. cartoes,varejo; empty means all"),
}
# What a person types becomes a word of the command line each: `NAMES` lets nothing else through, and it is quoted.
OPTIONS = (
    "{{ ' --full' if params.full else '' }}"
    "{{ ' --table=' ~ params.tables | quote if params.tables else '' }}"
    "{{ ' --domain=' ~ params.domain | quote if params.domain else '' }}"
)

if RUNNER == "bash":
    from airflow.providers.standard.operators.bash import BashOperator as Operator
elif RUNNER == "docker":
    from airflow.providers.docker.operators.docker import DockerOperator as Operator
else:
    raise ValueError(f"AIRFLOW_LAKEHOUSE_RUNNER is {RUNNER}; say bash or docker")


class Layer(Operator):
    """One call of the command line. Airflow retries it only if its exit code says that the reason can pass."""

    def execute(self, context: Context) -> None:
        try:
            super().execute(context)
        except AirflowSkipException:  # an exit code of `skip_on_exit_code`
            raise AirflowException(f"exit code {' or '.join(map(str, CAN_PASS))}: the reason can pass") from None
        except AirflowException as error:
            raise AirflowFailException(str(error)) from None
        except AirflowTaskTimeout:
            self.on_kill()
            raise AirflowFailException(f"stopped after {self.execution_timeout}") from None

    def on_kill(self) -> None:
        """Stops the process by a signal. BashOperator also logs, which would wait for ever for a line half written."""
        if RUNNER == "docker":
            super().on_kill()
        elif process := self.subprocess_hook.sub_process:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def call(layer: str) -> dict[str, Any]:
    """What the operator runs, and where. No secret is in a field that Airflow shows."""
    if RUNNER == "docker":
        return {
            "image": IMAGE,
            "command": f"{layer}{OPTIONS}",
            "private_environment": {name: text for name, text in os.environ.items() if name.startswith("LAKEHOUSE_")},
            "mounts": [{"target": "/data", "source": DATA, "type": "bind" if DATA.startswith("/") else "volume"}],
            "mount_tmp_dir": False,
            "auto_remove": "force",
        }
    return {
        "bash_command": f"exec .venv/bin/python -m pipelines {layer}{OPTIONS}",
        "cwd": PROJECT,
    }


def alert(context: Context) -> None:
    """Reports the failed task and the reason to the HTTP connection `lakehouse_alert`; without it only the log does."""
    try:
        BaseHook.get_connection(ALERT)
    except AirflowNotFoundException:
        logging.getLogger(__name__).info("no alert is sent: there is no connection %s", ALERT)
        return
    from airflow.providers.http.notifications import HttpNotifier

    task = context["ti"]
    text = f"{task.dag_id}.{task.task_id} has failed: {context['exception']}\n{task.log_url}"
    HttpNotifier(http_conn_id=ALERT, json={"text": text}, extra_options={"timeout": 10})(context)


with DAG(
    "lakehouse",
    doc_md=DOC,
    schedule="15 2 * * *",
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    user_defined_filters={"quote": shlex.quote},
    tags=["delta", "lakehouse"],
    default_args={
        "owner": "lakehouse",
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(hours=2),
        "on_failure_callback": alert,
        "skip_on_exit_code": CAN_PASS,
        "do_xcom_push": False,
    },
):
    bronze, silver = (Layer(task_id=layer, **call(layer)) for layer in ("bronze", "silver"))
    gold = Layer(task_id="gold", outlets=[Asset("movimento_flat")], **call("gold"))
    bronze >> silver >> gold
