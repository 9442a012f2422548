"""What the comparisons of reconcile share: the run that is compared, and the findings."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from conf.contract import Pii, Table
from conf.settings import Settings
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import SourceFault, StorageFault
from pipelines.lake import delta
from pipelines.lake.checksums import Difference, differences, measured
from pipelines.lake.engine import Engine
from pipelines.lake.runs import Run, TableRun
from pipelines.lake.versions import TableVersion, unchanged_table

AGREES, DIFFERS = "agrees", "differs"
WITH_RUN, WITH_UPSTREAM = 1, 2  # columns of a line of the findings


@dataclass
class Findings:
    """The results. `lines`: by layer and name the rows, whether they agree with their run, and with their upstream;
    `differences`: where they do not; `notes`: what is no fault of the lake; `unread`: why a source was not compared."""

    lines: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unread: SourceFault | None = None

    def begin(self, layer: str, name: str, rows: int) -> None:
        self.lines[layer, name] = [f"{rows:,}", "", ""]

    def add(self, layer: str, name: str, column: int, problems: list[str]) -> None:
        self.lines[layer, name][column] = DIFFERS if problems else AGREES
        self.differences += [f"{layer}.{name} {text}" for text in problems]

    @contextmanager
    def comparing(self, layer: str, name: str, column: int, what: str) -> Iterator[list[str]]:
        """A list of problems, to be filled; a StorageFault is the only one: something cannot be `what`."""
        problems: list[str] = []
        try:
            yield problems
        except StorageFault as fault:
            problems[:] = [f"cannot be {what}: {fault}"]
        self.add(layer, name, column, problems)


@dataclass(frozen=True)
class Comparison:
    """A run of a layer and domain, to be compared with what it recorded and with what it was made from."""

    settings: Settings
    layer: str
    run: Run
    findings: Findings
    report: Report

    def path(self, name: str) -> Path:
        return self.settings.layer_path(self.layer) / self.run.domain / name

    def contract(self, name: str) -> Table:
        table = catalogue.table_of(self.layer, self.run.domain, name)
        assert table is not None
        return table

    def head(self, table_run: TableRun) -> TableVersion:
        """What a table holds now, whether this run or somebody else left it so. Raises StorageFault."""
        path = self.path(table_run.name)
        version = delta.version(path)
        if version is None:
            raise StorageFault(f"table {path} is gone")
        head = unchanged_table(replace(table_run, version=version), self.contract(table_run.name), path).content
        for file in head.files:
            if not Path(file).exists():
                raise StorageFault(f"{file} is gone")
        return head


def differing_rows(
    db: Engine, expected: str, actual: str, types: Mapping[str, str], keys: tuple[str, ...]
) -> list[Difference]:
    """How two relations (SQL) differ in the columns `types`. Rows are looked at only if the checksums differ."""
    if measured(db, expected, types, keys) == measured(db, actual, types, keys):
        return []
    return differences(db, expected, actual, types, keys)


def shown(difference: Difference, table: Table) -> Difference:
    """Without its keys if they are personal data."""
    hidden = any(table[key].pii is not Pii.NONE for key in table.keys)
    return replace(difference, least="", most="") if hidden else difference
