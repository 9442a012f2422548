"""Runs on a real Spark cluster: a standalone master and two workers, which are lost, or lack something."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from conf.settings import Postgres
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import ClusterFault, QualityFault, UsageFault
from pipelines.core.identity import software
from pipelines.core.names import LAYERS
from pipelines.lake import delta
from pipelines.lake.runs import TableRun
from pipelines.run.layers import RunRequest, run_layers
from pipelines.seed.postgres import seed
from pipelines.spark import cluster as spark_cluster
from pipelines.spark import worker as spark_worker
from tests.support.cluster import Cluster, cluster, hosts, kill
from tests.support.lake import Lake
from tests.support.process import BRIEF, connection_settings, family, gone, start
from tests.support.proxy import Proxy
from tests.support.source import BANK, execute, query

READING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%%' AND application_name LIKE 'lakehouse {} %%'"
# Each row takes its time, so that something can happen to whoever reads it, and is long enough to be sent by itself.
SLOW = """
ALTER TABLE {0} RENAME TO {0}_;
CREATE VIEW {0} AS SELECT * FROM {0}_ WHERE CASE WHEN pg_sleep(0.05) IS NULL THEN false ELSE true END
"""


# What a worker's machine may have, and a run must not depend on.
FOREIGN = {"JAVA_TOOL_OPTIONS": "-Duser.language=tr -Duser.timezone=Asia/Tokyo", "PGSERVICE": "none"}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster"), more=FOREIGN) as made:
        yield made


@pytest.fixture
def slow(lakehouse: Lake) -> Lake:
    long = ("UPDATE associado SET nome = repeat('n', 20000)", "UPDATE cartao SET nom_impresso = repeat('N', 20000)")
    execute(
        lakehouse.address, *BANK, *long, *(SLOW.format(name) for name in ("associado", "conta", "cartao", "movimento"))
    )
    return lakehouse


def on(
    there: Cluster, lakehouse: Lake, *words: str, conf: dict[str, str] | None = None, **more: str
) -> "subprocess.Popen[str]":
    """The command line, which works on the cluster."""
    given = json.dumps(BRIEF | {"spark.executor.defaultJavaOptions": "-XX:TieredStopAtLevel=1"} | (conf or {}))
    return start(lakehouse, *words, LAKEHOUSE_SPARK__MASTER=there.master, LAKEHOUSE_SPARK__CONF=given, **more)


def ended(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """What a process said, which ended with a code."""
    shown, output = process.communicate(timeout=200)
    assert process.returncode == code, output
    return shown + output


def moved(lakehouse: Lake) -> Lake:
    """What the same source gives in this process, in a lake of its own."""
    other = Lake(lakehouse.folder / "here", lakehouse.address, lakehouse.spark)
    other.folder.mkdir()
    other.run()
    return other


def rows(table: TableRun) -> tuple[object, ...]:
    """The name, rows and columns of a table, but for when versions of rows began."""
    return table.name, table.rows_out, [column for column in table.columns if column.name != "_valid_from"]


def same(mine: Lake, other: Lake) -> None:
    """Asserts that two lakes have the same rows in all tables, by their checksums, and the same bytes in the CSV, and
    the first no file that no table has."""
    for layer in LAYERS:
        tables, others = mine.last(layer).tables, other.last(layer).tables
        assert list(map(rows, tables)) == list(map(rows, others))
        path = mine.settings().layer_path(layer) / "cartoes"
        named = {Path(file) for table in tables for file in delta.file_paths(path / table.name, table.version)}
        assert set(path.rglob("part-*.parquet")) == named
    assert mine.csv == other.csv


@pytest.mark.long
def test_a_run_on_two_workers_gives_what_this_process_gives_and_reads_nothing_itself(
    workers: Cluster, lakehouse: Lake
) -> None:
    with Report() as report:
        settings = lakehouse.settings(SEED__MOVIMENTOS="3000")
        seed(settings, lakehouse.address, catalogue.tables_of("bronze", "cartoes"), False, report)
    execute(
        lakehouse.address,
        *(
            f"ALTER TABLE movimento DROP CONSTRAINT {name}"
            for (name,) in query(
                lakehouse.address,
                "SELECT conname FROM pg_constraint WHERE conrelid = 'movimento'::regclass AND contype = 'f'",
            )
        ),
    )
    execute(
        lakehouse.address,
        "UPDATE movimento SET id_cartao = 999999 WHERE id % 100 = 0",
        "UPDATE associado SET email = 'ÃIRIS@IRIS.COM' WHERE id = 1",
    )
    before = sum(workers.finished_tasks())
    ended(on(workers, lakehouse, "bronze"))
    assert sum(workers.finished_tasks()) >= before + 2 * 2 + 4  # both are asked twice what they have, then read
    ended(on(workers, lakehouse, "silver", "gold"))
    assert all(workers.finished_tasks())
    same(lakehouse, moved(lakehouse))
    execute(lakehouse.address, "UPDATE movimento SET vlr_transacao = 1 WHERE id = 5")
    assert "bronze.movimento: 3,000 rows, 0 written, 1 updated, 0 deleted" in ended(on(workers, lakehouse, "bronze"))


@pytest.mark.long
def test_five_million_rows_are_read_by_both_workers_in_as_many_tasks(
    tmp_path_factory: pytest.TempPathFactory, lakehouse: Lake
) -> None:
    with Report() as report:
        settings = lakehouse.settings(SEED__MOVIMENTOS="5000000")
        seed(settings, lakehouse.address, catalogue.tables_of("bronze", "cartoes"), False, report)
    with cluster(tmp_path_factory.mktemp("cluster")) as there:
        ended(on(there, lakehouse, "bronze"))
        first, others = there.finished_tasks()
        assert min(first, others) > (first + others) / 4 > 5
        ended(on(there, lakehouse, "silver", "gold"))
    same(lakehouse, moved(lakehouse))


def test_a_master_that_does_not_answer_is_reported_at_once(lakehouse: Lake) -> None:
    execute(lakehouse.address, *BANK)
    began = time.monotonic()
    output = ended(on(Cluster(lakehouse.folder, "spark://127.0.0.1:1"), lakehouse, "bronze"), 2)
    assert output.splitlines()[-1] == (
        "cluster: spark://127.0.0.1:1 does not answer (Connection refused); start it, or correct LAKEHOUSE_SPARK__MASTER"
    )
    assert time.monotonic() - began < 30


@pytest.mark.long
def test_workers_without_our_packages_are_named_before_anything_is_read(workers: Cluster, lakehouse: Lake) -> None:
    execute(lakehouse.address, *BANK)
    bare = lakehouse.folder / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    output = ended(on(workers, lakehouse, "bronze", conf={"spark.pyspark.python": f"{bare}/bin/python"}), 2)
    (line,) = output.splitlines()
    assert re.fullmatch(
        rf"cluster: {workers.master}: worker \S+ its Python, {bare}/bin/python, lacks pyarrow: install "
        "requirements/run.txt there",
        line,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"spark.pyspark.python": "/nowhere/python"}, "a worker has no /nowhere/python: install the same Python"),
        ({"spark.executor.memory": "9g"}, "gave no executor in 60 s; one needs a free core and 9g of memory"),
    ],
)
def test_what_else_a_cluster_lacks_is_named(
    workers: Cluster, lakehouse: Lake, conf: dict[str, str], message: str
) -> None:
    execute(lakehouse.address, *BANK)
    assert message in ended(on(workers, lakehouse, "bronze", conf=conf), 2)


def test_the_embedded_server_is_no_source_for_a_cluster(lakehouse: Lake) -> None:
    settings = lakehouse.settings(SPARK__MASTER="spark://node1:7077").model_copy(update={"postgres": None})
    with Report() as report, pytest.raises(UsageFault, match="the embedded server is for this machine only"):
        run_layers(settings, RunRequest({"bronze"}, ("cartoes",)), report)


class Idle:
    """A session without executors, which has jobs or not."""

    def __init__(self, *jobs: int) -> None:
        self.sparkContext = self
        self.jobs, self.cancelled, self.defaultParallelism = jobs, threading.Event(), 1
        self.conf: dict[str, str] = {}

    def statusTracker(self) -> "Idle":
        return self

    def getActiveJobsIds(self) -> tuple[int, ...]:
        return self.jobs

    def cancelAllJobs(self) -> None:
        self.cancelled.set()


@pytest.mark.parametrize(
    ("jobs", "error", "becomes"),
    [
        ((1,), RuntimeError("cancelled"), ClusterFault),
        ((1,), QualityFault("wrong"), QualityFault),
        ((), KeyError(), KeyError),
    ],
)
def test_missing_executors_are_reported_only_while_work_waits_for_them(
    lakehouse: Lake, monkeypatch: pytest.MonkeyPatch, jobs: tuple[int, ...], error: Exception, becomes: type[Exception]
) -> None:
    for name, value in {
        "_wait": print,
        "_check": print,
        "_executors": lambda _: 0,
        "LOOK_SECONDS": 0.01,
        "EXECUTOR_SECONDS": 0.1,
    }.items():
        monkeypatch.setattr(spark_cluster, name, value)
    settings, idle = lakehouse.settings(SPARK__CONF='{"spark.sql.shuffle.partitions": "4"}'), Idle(*jobs)
    with pytest.raises(becomes), spark_cluster.watched(idle, settings):  # type: ignore[arg-type]
        assert idle.cancelled.wait(0.5) == bool(jobs)
        raise error


@pytest.mark.long
def test_a_run_is_stopped_while_a_master_does_not_speak(lakehouse: Lake) -> None:
    execute(lakehouse.address, *BANK)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        there = Cluster(lakehouse.folder, f"spark://127.0.0.1:{mute.getsockname()[1]}")
        process = on(there, lakehouse, *LAYERS)
        mute.accept()  # whether somebody listens
        mute.accept()  # Spark's own
        process.terminate()
        began = time.monotonic()
        ended(process, 143)
        assert time.monotonic() - began < 10


def lacks(**given: object) -> list[str]:
    wanted: dict[str, object] = {"packages": {}, "software": software(""), "folders": (), "source": None}
    return spark_worker.missing_on_worker(**(wanted | given))[1]  # type: ignore[arg-type]


def test_a_worker_says_what_it_lacks(tmp_path: Path, server: Postgres) -> None:
    folder = tmp_path / "bronze/.probe"
    folder.mkdir(parents=True)
    (folder / spark_worker.DRIVER_MARK).touch()
    wrong = {
        "": lacks(packages={"pyarrow": pytest.importorskip("pyarrow").__version__}, folders=(str(folder),)),
        "has pyarrow": lacks(packages={"pyarrow": "1.0"}),
        "lacks none-such": lacks(packages={"none-such": "1.0"}),
        "has another version of this project": lacks(software="0"),
        f"does not see the driver's {tmp_path / 'silver'}": lacks(folders=(str(tmp_path / "silver/.probe"),)),
        "cannot reach PostgreSQL at 127.0.0.1:1": lacks(source=("127.0.0.1", 1)),
        "cannot reach PostgreSQL at /nowhere": lacks(source=("/nowhere", 5432)),
    }
    for text, lacking in wrong.items():
        assert len(lacking) == bool(text) and all(text in line for line in lacking)
    assert lacks(source=(server.host, server.port)) == []
    assert lacks(source=(f"/nowhere,{server.host}", f"1,{server.port}")) == []


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="making hosts needs root and iproute2")
@pytest.mark.parametrize("hidden", [False, True], ids=["in clear", "encrypted"])
def test_workers_on_other_hosts_read_the_source_over_the_network(
    tmp_path: Path, lakehouse: Lake, server: Postgres, hidden: bool
) -> None:
    """The secret of the encryption is in a file that the master, the workers and the run are told of."""
    execute(lakehouse.address, *BANK)
    secret = "s3cret-of-the-cluster"
    defaults = f"spark.authenticate true\nspark.authenticate.secret {secret}\nspark.network.crypto.enabled true\n"
    (tmp_path / "spark-defaults.conf").write_text(defaults if hidden else "")
    with hosts() as places, cluster(tmp_path, on=places) as there, Proxy(server, host=places[0][1]) as proxy:
        address = proxy.address.model_copy(update={"database": lakehouse.address.database})
        given = connection_settings(address) | {"LAKEHOUSE_POSTGRES__PORT": str(address.port)}
        given |= {"LAKEHOUSE_POSTGRES__PASSWORD": "s3cret-of-the-source", "SPARK_CONF_DIR": str(tmp_path)}
        process = on(there, lakehouse, *LAYERS, conf={"spark.driver.host": places[0][1]}, **given)
        words = set[str]()
        while process.poll() is None:
            words |= {
                word for process_seen in psutil.process_iter(["cmdline"]) for word in process_seen.info["cmdline"] or ()
            }
            time.sleep(0.1)
        output = ended(process)
        assert all(there.finished_tasks())
        same(lakehouse, moved(lakehouse))
        if hidden:
            execute(lakehouse.address, "DELETE FROM movimento WHERE id = 1")
            (tmp_path / "other").mkdir()
            (tmp_path / "other/spark-defaults.conf").write_text(defaults.replace(secret, "another"))
            given["SPARK_CONF_DIR"] = str(tmp_path / "other")
            stranger = on(there, lakehouse, "bronze", conf={"spark.driver.host": places[0][1]}, **given)
            assert f"{there.master} accepts no application; it must be Spark" in ended(stranger, 2)
    assert ("goes to its workers in clear" in output) != hidden
    assert not [word for word in words if "s3cret" in word] and "s3cret" not in output


@pytest.mark.long
@pytest.mark.parametrize("moment", ["bronze", "bronze.movimento", "silver.conta", "silver.movimento"])
def test_a_worker_that_is_lost_in_the_middle_costs_neither_row_nor_file(
    tmp_path_factory: pytest.TempPathFactory, slow: Lake, moment: str
) -> None:
    other = moved(slow)
    with cluster(tmp_path_factory.mktemp("cluster")) as there:
        process = on(there, slow, *LAYERS)
        assert process.stderr is not None
        if moment == "bronze":
            while query(slow.address, READING.format(process.pid)) != [(2,)]:
                time.sleep(0.05)
        else:
            while moment not in process.stderr.readline():
                assert process.poll() is None
            time.sleep(0.5)
        kill(there.workers[0])
        ended(process)
    same(slow, other)


@pytest.mark.long
def test_a_run_whose_workers_are_all_lost_ends_and_the_next_one_gives_all(
    tmp_path_factory: pytest.TempPathFactory, slow: Lake
) -> None:
    other = moved(slow)
    with cluster(tmp_path_factory.mktemp("cluster")) as there:
        process = on(there, slow, *LAYERS)
        while query(slow.address, READING.format(process.pid)) != [(2,)]:
            time.sleep(0.05)
        for worker in there.workers:
            kill(worker)
        output = ended(process, 2).splitlines()[-1]
        assert output == f"cluster: {there.master} had no executor for 60 s; start its workers, then run it again"
        assert not list(slow.settings().bronze_path.rglob("*.parquet"))
        there.start()
        ended(on(there, slow, *LAYERS))
    same(slow, other)


@pytest.mark.long
def test_a_run_that_is_stopped_while_workers_read_ends_soon_with_its_queries(workers: Cluster, slow: Lake) -> None:
    process = on(workers, slow, *LAYERS)
    while query(slow.address, READING.format(process.pid)) != [(2,)]:
        time.sleep(0.05)
    process.terminate()
    began = time.monotonic()
    output = ended(process, 143)
    assert time.monotonic() - began < 15 and "Traceback" not in output
    assert query(slow.address, READING.format(process.pid)) == [(0,)]
    assert not list(slow.settings().bronze_path.rglob("*.parquet"))


@pytest.mark.long
@pytest.mark.parametrize("until", ["bronze", "silver"])
def test_a_driver_that_is_killed_leaves_no_executor_and_no_query_and_the_next_run_gives_all(
    workers: Cluster, slow: Lake, until: str
) -> None:
    other = moved(slow)
    process = on(workers, slow, *LAYERS)
    assert process.stderr is not None
    if until == "bronze":
        while query(slow.address, READING.format(process.pid)) != [(2,)]:
            time.sleep(0.05)
        locked = ended(on(workers, slow, "bronze"), 6)
        assert f"locked: process {process.pid} on " in locked
    else:
        while "bronze.movimento" not in process.stderr.readline():
            assert process.poll() is None
    theirs = [child for worker in workers.workers for child in psutil.Process(worker.pid).children(recursive=True)]
    for child in family(process):
        child.kill()
    process.kill()
    assert gone(theirs, 30)
    while query(slow.address, READING.format(process.pid)) != [(0,)]:
        time.sleep(0.1)
    ended(on(workers, slow, *LAYERS))
    assert slow.csv == other.csv
