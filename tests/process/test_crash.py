"""Something goes wrong at each point of the commit protocol: readers see the last complete state, the next run mends."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet
from pyspark.sql import SparkSession

from conf.settings import Postgres
from pipelines.commands.history import restore
from pipelines.commands.maintain import maintain
from pipelines.core.console import Report
from pipelines.core.names import LAYERS
from pipelines.lake import delta, run_log
from pipelines.lake.runs import Mode, Run
from pipelines.spark.remote import is_remote
from tests.support.crash import ALL_KINDS, DISK, GATEWAY, SCENARIOS, SERVER, Scenario, child
from tests.support.lake import Lake
from tests.support.oracle import agree
from tests.support.process import clean_environment, connection_settings
from tests.support.source import execute, fill, fresh_database

# What changes between the two states: rows come, go, change, and enter and leave quarantine, in every table.
CHANGES = (
    "UPDATE associado SET nome = 'Novo' WHERE id = 1; DELETE FROM associado WHERE id = 4",
    "UPDATE conta SET tipo = 'salário' WHERE id = 1; INSERT INTO conta VALUES (9, 'corrente', NULL, 999)",
    "UPDATE cartao SET id_conta = 888 WHERE id = 5; INSERT INTO cartao VALUES (6, '4111111111111111', 'N', NULL, 1, 1)",
    "DELETE FROM movimento WHERE id = 3; INSERT INTO movimento VALUES (20, 12.34, 'novo', '2024-05-05', 6)",
)
KINDS = {"kill": -9, "error": 1, "full": 5}
CSV = "export/movimento_flat.csv"
# With keys, and with enough rows that do not change, all layers follow what does.
MANY = 100
KEYS = (
    *(f"ALTER TABLE {name} ADD PRIMARY KEY (id)" for name in ("associado", "conta", "cartao", "movimento")),
    f"INSERT INTO associado SELECT i - 1000, 'Ana', 'Lima', 30, 'a@b' FROM generate_series(1, {MANY}) i",
    f"INSERT INTO conta SELECT i - 1000, 'corrente', '2020-01-01', i - 1000 FROM generate_series(1, {MANY}) i",
    f"INSERT INTO cartao SELECT i - 1000, '1', 'x', '2020-01-01', i - 1000, i - 1000 FROM generate_series(1, {MANY}) i",
    f"INSERT INTO movimento SELECT i - 1000, 1, 'x', '2024-01-01', i - 1000 FROM generate_series(1, {MANY}) i",
)
State = dict[str, Run]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A small disk of its own, where this machine lets us have one."""
    path = tmp_path_factory.mktemp("disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], capture_output=True).returncode:
        yield None
        return
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@dataclass
class Nights:
    """A lake at each stage of its second night: before it, and after bronze, silver and gold; and how each began."""

    folder: Path
    address: Postgres
    spark: SparkSession

    def at(self, stage: str) -> Path:
        return self.folder / (stage or "before")

    def stage(self, target: str) -> str:
        """The stage from which a target starts."""
        return {"bronze": "before", "silver": "bronze", "gold": "silver"}.get(target, "gold")


@pytest.fixture(scope="module")
def nights(
    server: Postgres, any_spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[bool], Nights]]:
    """Two nights of a source, whose tables have keys or not."""
    with ExitStack() as stack:

        @cache
        def lived(keyed: bool) -> Nights:
            address = stack.enter_context(fresh_database(server))
            folder = tmp_path_factory.mktemp("nights")
            work = Lake(folder / "work", address, any_spark)
            fill(work, *(KEYS if keyed else ()))
            work.run()
            shutil.copytree(work.folder, folder / "before")
            execute(address, *CHANGES)
            for layer in LAYERS:
                work.run(layer)
                shutil.copytree(work.folder, folder / layer)
            assert agree(work) == 14 + keyed * MANY
            for layer in LAYERS:
                whole = {table.mode is Mode.FULL for table in state(work)[layer].tables if not table.is_beside}
                assert whole == {not keyed}
            return Nights(folder, address, any_spark)

        yield lived


def state(lakehouse: Lake) -> State:
    """What readers see: the last run of each layer, its tables whole."""
    settings = lakehouse.settings()
    seen: State = {}
    for layer in LAYERS:
        run = run_log.last_run(settings.layer_path(layer), "cartoes")
        assert run is not None
        run_log.check_tables(layer, settings.layer_path(layer), run)
        seen[layer] = run
    return seen


def content(seen: State) -> dict[str, object]:
    """The same without versions, times and numbers of runs: rows, checksums and sums of every table."""
    return {
        f"{layer}.{table.name}": (
            table.rows_in,
            table.rows_out,
            table.set_aside,
            [column for column in table.columns if column.name != "_batch"],
        )
        for layer in seen
        for table in seen[layer].tables
    }


def heads(lakehouse: Lake) -> bool:
    """Whether each table's head is the version that the last run recorded."""
    return all(
        delta.version(lakehouse.settings().layer_path(layer) / "cartoes" / table.name) == table.version
        for layer, run in state(lakehouse).items()
        for table in run.tables
    )


def crashed(lakehouse: Lake, scenario: str, kind: str, disk: Path | None) -> tuple[int, str]:
    """The exit code and the errors of a run in which something went wrong."""
    environment = clean_environment(lakehouse.folder) | connection_settings(lakehouse.address)
    environment |= {"LAKEHOUSE_CALL__RUN": "silver/1"} | session_of(lakehouse.spark)
    environment |= {DISK: str(disk), "LAKEHOUSE_QUALITY__MAX_QUARANTINED": "1", "LAKEHOUSE_HISTORY_DAYS": "1"}
    code, errors = child(scenario, kind, lakehouse.folder, environment)
    if disk:
        (disk / "filler").unlink(missing_ok=True)
    return code, errors


def session_of(spark: SparkSession) -> dict[str, str]:
    """The environment with which a child finds a session: that of this process's JVM, or a server of its own."""
    if is_remote(spark):
        return {SERVER: "1"}
    gateway = spark.sparkContext._gateway.gateway_parameters  # type: ignore[union-attr]
    return {GATEWAY: str(gateway.port), "PYSPARK_GATEWAY_SECRET": gateway.auth_token}


def again(lakehouse: Lake, target: str) -> None:
    """The target once more, undisturbed."""
    with Report() as report:
        if target == "restore":
            restore(lakehouse.settings(), "silver/1", report)
        elif target == "maintain":
            maintain(lakehouse.settings(), report)
        else:
            lakehouse.run(target)


def leftovers(lakehouse: Lake) -> list[Path]:
    """Files and folders that no recorded version names."""
    settings = lakehouse.settings()
    named: set[Path] = set()
    for layer in LAYERS:
        path = settings.layer_path(layer)
        for run in run_log.read_runs(path):
            for table in run.tables:
                folder = path / run.domain / table.name
                named |= {*map(Path, delta.file_paths(folder, table.version))}
                named |= {folder / name for name in delta.added_since(folder, 0)}
        for name in (run_log.RUNS, run_log.QUALITY):
            if (head := delta.version(path / name)) is not None:
                named |= {*map(Path, delta.file_paths(path / name, head))}
    files = [*(lakehouse.folder / "lake").rglob("*.parquet"), *(lakehouse.folder / "lake").rglob(".*.*.*")]
    return [*(path for path in files if path not in named), *(lakehouse.folder / "export").glob(".*")]


def crashes(name: str, scenario: Scenario) -> Iterator[ParameterSet]:
    """What `make test` tries of a scenario, and what `make test-long` tries."""
    rest = tuple(kind for kind in ALL_KINDS if scenario.long or kind not in scenario.kinds)
    if not scenario.long:
        yield pytest.param(name, scenario.kinds, id=name)
    if rest:
        yield pytest.param(name, rest, id=f"{name}: {', '.join(rest)}", marks=pytest.mark.long)


@pytest.mark.parametrize(("name", "kinds"), [case for pair in SCENARIOS.items() for case in crashes(*pair)])
def test_after_a_crash_at_any_point_readers_see_a_complete_state_and_the_next_run_mends(
    name: str, kinds: tuple[str, ...], nights: Callable[[bool], Nights], disk: Path | None, tmp_path: Path
) -> None:
    scenario = SCENARIOS[name]
    lived = nights(scenario.keyed)
    folder = (disk or tmp_path) / re.sub(r"\W+", "-", name)
    stage = lived.stage(scenario.target)
    shutil.copytree(lived.at(stage), folder)
    lakehouse = Lake(folder, lived.address, lived.spark)
    if scenario.target == "maintain":
        for number in range(3):
            (folder / f"lake/silver/cartoes/conta/part-{number:05d}-left.parquet").write_bytes(b"left")
    expected = lived.at(stage if scenario.target in ("restore", "maintain") else scenario.target)
    csvs = {lived.at(name_of_stage).joinpath(CSV).read_bytes() for name_of_stage in (stage, expected.name)}
    before = state(lakehouse)
    try:
        if scenario.first:
            assert crashed(lakehouse, scenario.first, "kill", disk)[0] == -9
        for kind in kinds:
            if kind == "full" and disk is None:
                continue
            csv = lakehouse.csv
            code, errors = crashed(lakehouse, name, kind, disk)
            # Nothing more to write, or room was made.
            late = kind == "full" and (scenario.complete or (scenario.target == "maintain" and not code))
            assert code == (0 if late else KINDS[kind]), errors
            last = errors.strip().splitlines()[-1] if errors.strip() else ""
            assert "Traceback" not in errors and (kind != "full" or late or last.startswith("storage: ")), last
            seen = state(lakehouse)
            if not scenario.complete:
                assert seen == before or (scenario.target == "maintain" and content(seen) == content(before))
            else:
                assert content(seen) == content(state(Lake(expected, lived.address, lived.spark))) and heads(lakehouse)
            if scenario.complete:
                assert lakehouse.csv == expected.joinpath(CSV).read_bytes()
            else:
                assert lakehouse.csv in (csvs if kind == "kill" else [csv])
        again(lakehouse, scenario.target)
        seen = state(lakehouse)
        if scenario.target == "restore":
            wanted = state(Lake(lived.at("before"), lived.address, lived.spark))["silver"]
            assert content({"silver": seen["silver"]}) == content({"silver": wanted})
        else:
            assert content(seen) == content(state(Lake(expected, lived.address, lived.spark)))
        assert lakehouse.csv == expected.joinpath(CSV).read_bytes()
        with Report() as report:
            maintain(lakehouse.settings(), report)
        assert leftovers(lakehouse) == []
    finally:
        if os.environ.get("KEEP") is None:
            shutil.rmtree(folder)
