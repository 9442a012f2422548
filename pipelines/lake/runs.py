"""What a run works with and records, as frozen data, and when a table is built in full."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from conf.contract import Severity
from conf.settings import Settings
from pipelines.core.console import Report
from pipelines.core.errors import QualityFault
from pipelines.core.identity import software
from pipelines.core.names import HISTORY, QUARANTINE
from pipelines.lake.checksums import ColumnRun, Content

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MUCH_CHANGED = "much of it changed"


class Mode(StrEnum):
    """What a run did to a table: built it in full, applied what changed, or left its version as it was."""

    FULL = "full"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class CsvPart:
    """A part of a CSV: the records of a range of keys; `files` is the fingerprint of the range and of the data files
    that have it. `sums`: of the amounts, in the order of their columns. `digest`: BLAKE2b of its bytes."""

    files: str
    bytes: int
    rows: int
    sums: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class TableRun:
    """What a run did to a table: the Delta version that it left, and its rows: rows_in = rows_out + set_aside + copies.

    `guaranteed`: what the source's constraints promise, "key" or the name of a column with a reference.
    `files`: fingerprint of the version's files. `full_at`: when it was last built in full; `how`: what this run did, in
    words for people. `basis`: of bronze, what incremental loads rest on. `csv_sha256`: of the CSV that has these rows,
    when the table has one; `csv_parts`: what it consists of, behind its header. `base`, `batches`: an earlier release
    appended `batches` that supersede rows since the run `base`.
    """

    name: str
    version: int
    rows_in: int
    rows_out: int
    set_aside: int = 0
    copies: int = 0
    seconds: float = 0.0
    guaranteed: tuple[str, ...] = ()
    columns: tuple[ColumnRun, ...] = ()
    files: str = ""
    full_at: datetime | None = None
    how: str = ""
    base: int | None = None
    batches: int = 0
    basis: str = ""
    mode: Mode = Mode.FULL
    csv_sha256: str | None = None
    csv_parts: tuple[CsvPart, ...] = ()

    @property
    def is_beside(self) -> bool:
        return self.name.endswith((QUARANTINE, HISTORY))

    @property
    def content(self) -> Content:
        return Content(self.rows_out, self.columns)

    @property
    def totals(self) -> dict[str, Decimal]:
        return self.content.sums


@dataclass(frozen=True)
class Run:
    """A complete run of one layer and domain.

    `source` (an address, or EMBEDDED), `lake` and `snapshot` come down from bronze. `hashing`: how the columns'
    checksums were made. `card_numbers`: whether they are masked from silver on. `kind`: a restore or a compaction has
    the content of the run `content_of`. `position`: the place of the source in its write-ahead log.
    `software`: fingerprint of the software that built it. `quality_version`, `files_version`: of the tables that have
    its rules and files.
    """

    run: int
    lake: str
    domain: str
    upstream_run: int | None
    source: str
    snapshot: str
    started: datetime
    finished: datetime
    tables: tuple[TableRun, ...] = ()
    hashing: str = ""
    warnings: tuple[str, ...] = ()
    card_numbers: str = "masked"
    kind: Literal["run", "restore", "compaction"] = "run"
    content_of: int | None = None
    position: str = ""
    software: str = ""
    quality_version: int | None = None
    files_version: int | None = None

    @property
    def built_in(self) -> int:
        """The number of the run that built what this one has."""
        return self.run if self.content_of is None else self.content_of

    def table(self, name: str) -> TableRun:
        """What the run did to a table. Raises QualityFault when the table is younger than the run."""
        if table_run := table_runs(self).get(name):
            return table_run
        raise QualityFault(f"run {self.run} of the layer before has no table {name}; run that layer again")


def table_runs(run: Run | None) -> dict[str, TableRun]:
    """What a run did to its tables, by name; nothing without a run."""
    return {table.name: table for table in run.tables} if run else {}


@dataclass(frozen=True)
class RunContext:
    """What a run of a layer is about: the run that begins, the previous one, the tables to be built in full."""

    run: Run
    previous: Run | None
    full: frozenset[str]


@dataclass(frozen=True)
class Job(RunContext):
    """A run of silver or gold in one domain.

    `upstream` is the run of the layer below that it reads. `origin` is the one that `previous` was built from, None if
    its files are gone. `session` starts Spark when it is first called. `scratch` is a folder that lasts as long as the
    tables are being built.
    """

    settings: Settings
    report: Report
    scratch: Path
    session: "Callable[[], SparkSession]"
    upstream: Run
    origin: Run | None


@dataclass(frozen=True)
class RuleRun:
    """How a rule fared in a run: rows tested and failed, up to three keys of failed ones."""

    run: int
    domain: str
    table: str
    rule: str
    severity: Severity
    tested: int
    failed: int
    keys: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.failed / self.tested if self.tested else 0.0


@dataclass(frozen=True)
class IngestedFile:
    """A file that a run took. `lines`: those behind the header, bad ones too; `first`: the number of the first of them
    among all of the table; `bad`: those that are no rows. `why`: why no line is a row, if so; then the header counts,
    too. `extras`: columns that no contract names. `spans`: the first number and the end of each piece in which the
    lines are numbered, when they are more than one."""

    run: int
    domain: str
    table: str
    name: str
    sha256: str
    bytes: int
    modified: datetime
    first: int
    lines: int
    bad: int
    why: str = ""
    extras: tuple[str, ...] = ()
    spans: tuple[int, ...] = ()

    @property
    def numbers(self) -> tuple[range, ...]:
        spans = self.spans or (self.first, self.first + self.lines)
        return tuple(map(range, spans[::2], spans[1::2]))


class RowCounts(NamedTuple):
    """The rows that a run inserted into a table, updated and deleted when it applied what changed."""

    inserted: int
    updated: int
    deleted: int

    @property
    def text(self) -> str:
        return f"{self.inserted:,} written, {self.updated:,} updated, {self.deleted:,} deleted"


def row_counts(came: int, went: int, updated: int) -> RowCounts:
    """What applying changes did: of the rows that came, `updated` have the key of one that went."""
    updated = min(updated, came, went)  # a key may come twice
    return RowCounts(came - updated, updated, went - updated)


def reason_for_full(settings: Settings, table_run: TableRun | None, asked: bool, now: datetime) -> str:
    """Why a table is built in full, whatever changed: the first time, asked for, or the last time is long ago (some
    hours early, so that a nightly run is never late). Empty when none of it holds."""
    if table_run is None:
        return "the first time"
    if asked:
        return "asked for"
    if table_run.full_at and timedelta(0) <= now - table_run.full_at <= timedelta(days=settings.full_days, hours=-12):
        return ""
    return f"LAKEHOUSE_FULL_DAYS={settings.full_days} have passed"


def reason_for_full_derived(settings: Settings, call: RunContext, origin: Run | None, name: str) -> str:
    """Why a table of silver or gold is built in full, whatever changed; `origin` is the run its last version is of."""
    previous = call.previous
    table_run = table_runs(previous).get(name)
    if why := reason_for_full(settings, table_run, name in call.full, call.run.started):
        return why
    if previous and previous.software != software(previous.domain):
        return "this software changed"
    if previous and previous.card_numbers != settings.card_numbers:
        return "LAKEHOUSE_CARD_NUMBERS changed"
    return "" if origin else "the run that it was built from is gone"
