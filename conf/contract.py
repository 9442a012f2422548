"""What a table promises, said once: columns, types, keys, references, rules, personal data.

Frozen data only. The contract knows no Spark session, no PostgreSQL and no disk; it drives the source's DDL, the fake
data, the Delta schema and its comments, the checks and the tests.
"""

import codecs
import re
from dataclasses import dataclass, replace
from enum import StrEnum

DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")


def is_summed(kind: str) -> bool:
    """Whether sums of a type are proved: a decimal that leaves eleven of 38 digits to the sum."""
    match = DECIMAL.fullmatch(kind)
    return match is not None and int(match[1]) <= 27


class Pii(StrEnum):
    """How a column touches a person."""

    NONE = "none"
    INDIRECT = "indirect"  # says something about a person, names nobody: age
    DIRECT = "direct"  # names or reaches a person: name, e-mail
    CARD = "card"  # a card number: masked from silver on


class Severity(StrEnum):
    """What a row that fails a rule does: it passes and is counted, it is set aside, or it ends the run."""

    WARN = "warn"
    QUARANTINE = "quarantine"
    FAIL = "fail"


@dataclass(frozen=True)
class Rule:
    """A condition in Spark SQL that a row should meet. A condition that is null counts as met."""

    condition: str
    severity: Severity
    name: str


def warn(condition: str, name: str = "") -> Rule:
    """A rule whose failures are odd but harmless. Named by its condition unless `name` says better."""
    return Rule(condition, Severity.WARN, name or condition)


def quarantine(condition: str, name: str = "") -> Rule:
    """A rule whose failures would make gold wrong."""
    return Rule(condition, Severity.QUARANTINE, name or condition)


def fail(condition: str, name: str = "") -> Rule:
    """A rule that no row may fail: the run ends and what was there before stays."""
    return Rule(condition, Severity.FAIL, name or condition)


@dataclass(frozen=True)
class Fake:
    """How the seed makes a value up: a maker of `pipelines/fake.py`, its arguments, the share of nulls (0 to 1)."""

    maker: str
    args: tuple[str | int, ...] = ()
    nulls: float = 0.0


def fake(maker: str, *args: str | int, nulls: float = 0.0) -> Fake:
    return Fake(maker, args, nulls)


@dataclass(frozen=True)
class Reference:
    """A column points at the key of `table`, of several columns with the help of those named `beside` it, in the key's
    order; rules may use the parent's named columns as `parent.column`."""

    table: "Table"
    columns: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Csv:
    """How the text of a file is to be read.

    `encoding`: a byte order mark before UTF-8 is no text. `null`: the unquoted field that means null. `decimal_comma`:
    the columns whose decimals have a comma. `multiline`: a quoted field may go on in the next line. `rest`: the last
    column takes the rest of its line, delimiters too, unless it is quoted.
    """

    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    line_end: str = "\n"
    null: str = ""
    decimal_comma: tuple[str, ...] = ()
    multiline: bool = False
    rest: bool = False

    def __post_init__(self) -> None:
        codecs.lookup(self.encoding)
        if len(self.delimiter) != 1 or len(self.quote) != 1 or self.delimiter == self.quote:
            raise ValueError(f"delimiter {self.delimiter!r} and quote {self.quote!r} must be two characters")
        if self.line_end not in ("\n", "\r\n", "\r"):
            raise ValueError(f"line end {self.line_end!r} must be \\n, \\r\\n or \\r")


@dataclass(frozen=True)
class Files:
    """Where a table of bronze is not PostgreSQL's: files in the landing folder of its domain, by a pattern of their
    names, each with a header. `replaced`: a file of a name that was taken before, with other content, takes the place
    of the earlier one; else that is an error."""

    pattern: str
    dialect: Csv = Csv()
    replaced: bool = False


@dataclass(frozen=True)
class Total:
    """What a column of gold adds up to: the rows of an input, or the sum of one of its columns."""

    table: "Table"
    column: str = ""


@dataclass(frozen=True)
class Column:
    """One column: Spark SQL type name, comment, and what is promised of it.

    A key is never null. `optional`: the source may lack the column, which is then null. `source`: the column of the
    input table that it is made from, its own name unless said. `labels`: the known values; others pass with a warning.
    `serial`: not in the files, but counted from 1, a number a line, in the order in which the files came. `total`: what
    its values add up to; the run proves it.
    """

    name: str
    type: str
    comment: str
    key: bool = False
    nullable: bool = False
    optional: bool = False
    serial: bool = False
    pii: Pii = Pii.NONE
    labels: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    reference: Reference | None = None
    source: str = ""
    total: Total | None = None
    fake: Fake | None = None

    @property
    def made_from(self) -> str:
        return self.source or self.name

    @property
    def pointing(self) -> tuple[str, ...]:
        """The columns that together point at the key of another table."""
        return (self.name, *(self.reference.beside if self.reference else ()))

    @property
    def decimal(self) -> tuple[int, int] | None:
        """(precision, scale) of a decimal column."""
        match = DECIMAL.fullmatch(self.type)
        return (int(match[1]), int(match[2])) if match else None

    @property
    def summed(self) -> bool:
        """Whether its sum is proved from layer to layer."""
        return is_summed(self.type)


@dataclass(frozen=True)
class Table:
    """One table. `module` is the declaring module's `__name__`, `doc` its docstring.

    `source`: the source's name for it, where that is no module name. `one_row_per`: the input of which each row gives
    exactly one row here, made of it and of what its references reach; the run proves it. `csv`: exported, without the
    columns that start with `_`, in key order. `order`: how a person wants to read it, columns, `-` for the greatest
    first; by its key unless said. `history`: of silver, all versions of its rows lie beside it; not of card
    numbers, which would stay when they are masked. `fake_rows`: rows the seed makes per movement.
    """

    module: str
    doc: str
    columns: tuple[Column, ...]
    inputs: tuple["Table", ...] = ()
    rules: tuple[Rule, ...] = ()
    source: str = ""
    files: Files | None = None
    one_row_per: "Table | None" = None
    csv: bool = False
    order: tuple[str, ...] = ()
    history: bool = False
    fake_rows: float = 0.0

    def __post_init__(self) -> None:
        if self.history and any(column.pii is Pii.CARD for column in self.columns):
            raise ValueError(f"{self.module}: no history is kept of card numbers")
        if same := {column.name for column in self.columns} & {
            reference.table.name for _, reference in self.references
        }:
            raise ValueError(f"{self.module}: rules cannot tell column {min(same)} from the table that is referred to")
        if self.files and self.files.replaced and any(column.serial for column in self.columns):
            raise ValueError(f"{self.module}: numbers that are counted do not stay where files are replaced")

    @property
    def layer(self) -> str:
        return self.module.split(".")[0]

    @property
    def domain(self) -> str:
        return self.module.split(".")[1]

    @property
    def name(self) -> str:
        return self.module.split(".")[2]

    @property
    def source_name(self) -> str:
        return self.source or self.name

    @property
    def comment(self) -> str:
        """The docstring as one line."""
        return " ".join(self.doc.split())

    @property
    def summed(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.summed)

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.key)

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """The rules of the columns, then those of the table."""
        return (*(rule for column in self.columns for rule in column.rules), *self.rules)

    @property
    def references(self) -> tuple[tuple[Column, Reference], ...]:
        """The columns that point at other tables, and where."""
        return tuple((column, column.reference) for column in self.columns if column.reference)

    def carried(self, **references: Reference) -> tuple[Column, ...]:
        """The columns as a table has them that is made of this one, some of them with a reference."""
        return tuple(
            replace(column, fake=None, serial=False, optional=False, reference=references.get(column.name))
            for column in self.columns
        )

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)
