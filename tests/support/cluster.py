"""A real Spark cluster for the tests: a standalone master and workers, each a process of its own on loopback."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyspark

SPARK_CLASS = Path(pyspark.__file__).parent / "bin/spark-class"
SECONDS = 60


@dataclass
class Cluster:
    """A master's address, and the processes of its workers. `hosts`: what a host's commands begin with, and its
    address; the first is the master's, workers take turns with the others."""

    folder: Path
    master: str = ""
    hosts: tuple[tuple[tuple[str, ...], str], ...] = (((), "127.0.0.1"),)
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, more: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """One more worker, with more in its environment, which has registered when this returns."""
        name = f"worker{len(self.workers)}"
        words = ("--cores", "1", "--memory", "2g", "--work-dir", str(self.folder / name), "--webui-port", "0")
        worker, _ = self._daemon(
            name, "Worker", "Successfully registered with master", *words, self.master, **(more or {})
        )
        self.workers.append(worker)
        return worker

    def finished_tasks(self) -> list[int]:
        """The tasks that each worker's executors have done."""
        logs = [(self.folder / f"worker{number}").rglob("stderr") for number in range(len(self.workers))]
        return [sum(log.read_text(errors="replace").count("Finished task") for log in of_worker) for of_worker in logs]

    def start_master(self) -> "subprocess.Popen[bytes]":
        master, started = self._daemon(
            "master", "Master", r"Starting Spark master at (spark://\S+)", "--port", "0", "--webui-port", "0"
        )
        self.master = started[1]
        return master

    def _daemon(
        self, name: str, kind: str, sign: str, *words: str, **more: str
    ) -> "tuple[subprocess.Popen[bytes], re.Match[str]]":
        others = self.hosts[1:] or self.hosts
        inside, address = others[len(self.workers) % len(others)] if self.master else self.hosts[0]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "SPARK_LOCAL_DIRS": str(self.folder)}
        environment |= {"SPARK_CONF_DIR": str(self.folder), "SPARK_LOCAL_IP": address}
        environment |= {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1"}
        environment |= {name: os.environ[name] for name in ("JAVA_HOME",) if name in os.environ} | more
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            made = subprocess.Popen(
                [*inside, SPARK_CLASS, f"org.apache.spark.deploy.{kind.lower()}.{kind}", "--host", address, *words],
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and made.poll() is None:
            if match := re.search(sign, log.read_text(errors="replace")):
                return made, match
            time.sleep(0.1)
        raise RuntimeError(f"{kind} did not start: {log.read_text(errors='replace')[-2000:]}")


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process and all that it started, as a machine that loses its power does."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        member.suspend()
    for member in family:
        member.kill()
    process.wait()


@contextmanager
def hosts() -> Iterator[tuple[tuple[tuple[str, ...], str], ...]]:
    """Three hosts on a network of their own: this one, and two that see of it only that network. Needs root."""
    bridge, net = f"lk{os.getpid() % 10**6}", f"10.231.{os.getpid() % 250}"
    made = [((), f"{net}.1"), *((("ip", "netns", "exec", f"{bridge}{n}"), f"{net}.{n}") for n in (2, 3))]
    begin = [f"link add {bridge} type bridge", f"addr add {net}.1/24 dev {bridge}", f"link set {bridge} up"]
    for n in (2, 3):
        begin += [f"netns add {bridge}{n}", f"link add {bridge}v{n} type veth peer name e netns {bridge}{n}"]
        begin += [f"link set {bridge}v{n} master {bridge} up", f"-n {bridge}{n} addr add {net}.{n}/24 dev e"]
        begin += [f"-n {bridge}{n} link set e up", f"-n {bridge}{n} link set lo up"]
    try:
        for words in begin:
            subprocess.run(["ip", *words.split()], check=True, capture_output=True)
        yield tuple(made)
    finally:
        for words in (f"netns del {bridge}2", f"netns del {bridge}3", f"link del {bridge}"):
            subprocess.run(["ip", *words.split()], check=False, capture_output=True)


@contextmanager
def cluster(
    folder: Path, workers: int = 2, on: tuple[tuple[tuple[str, ...], str], ...] = (), more: dict[str, str] | None = None
) -> Iterator[Cluster]:
    """A master and workers, these with more in their environment."""
    made = Cluster(folder, hosts=on or Cluster.hosts)
    master = made.start_master()
    try:
        for _ in range(workers):
            made.start(more)
        yield made
    finally:
        for process in (*made.workers, master):
            kill(process)
