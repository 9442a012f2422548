"""Airflow for one person on one machine: database, API server, scheduler and DAG processor, until one of them ends.

`airflow standalone` is not used: its log server listens on all addresses.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
AIRFLOW = Path(sys.executable).with_name("airflow")
# The environment overrides these.
SETTINGS = {
    "AIRFLOW_HOME": str(PROJECT / ".airflow"),
    "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DEFAULT_TIMEZONE": "system",  # as cron
    "AIRFLOW__CORE__PARALLELISM": "2",
    "AIRFLOW__API__HOST": "127.0.0.1",
    "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{os.environ.get('AIRFLOW__API__PORT', '8080')}",
    "AIRFLOW__API__WORKERS": "1",
}
# A task's log lies on this machine, so nothing has to serve it. No task is deferred, so there is no triggerer.
PARTS = (("api-server",), ("scheduler", "--skip-serve-logs"), ("dag-processor",))


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    environment = SETTINGS | os.environ
    home = Path(environment["AIRFLOW_HOME"])
    home.mkdir(mode=0o700, exist_ok=True)
    subprocess.run([AIRFLOW, "db", "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
    running = [subprocess.Popen([AIRFLOW, *words], env=environment, start_new_session=True) for words in PARTS]
    password = home / "simple_auth_manager_passwords.json.generated"
    print(f"{environment['AIRFLOW__API__BASE_URL']}, user admin, its password is in {password}", file=sys.stderr)
    try:
        while all(part.poll() is None for part in running):
            time.sleep(1)
        return 1
    finally:
        # The API server last: a running task is waited for, and reports to it how it ended.
        for part in reversed(running):
            part.terminate()
            part.wait()


if __name__ == "__main__":
    sys.exit(main())
