"""What a table promises, written once: columns, types, keys, references, rules, personal data.

Frozen data only, without a Spark session, PostgreSQL or a disk. The source's DDL, the fake data, the Delta schema and
its comments, the checks and the tests are made from it.
"""

import codecs
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")


def is_summed(kind: str) -> bool:
    """Whether runs prove the sum of a column of this type: a decimal that leaves eleven of 38 digits to the sum."""
    match = DECIMAL.fullmatch(kind)
    return match is not None and int(match[1]) <= 27


class Pii(StrEnum):
    """How a column touches a person."""

    NONE = "none"
    INDIRECT = "indirect"  # describes a person, names nobody: age
    DIRECT = "direct"  # names or reaches a person: name, e-mail
    CARD = "card"  # a card number: masked from silver on


class Severity(StrEnum):
    """What happens to a row that fails a rule: it passes and is counted, it is set aside, or it ends the run."""

    WARN = "warn"
    QUARANTINE = "quarantine"
    FAIL = "fail"


@dataclass(frozen=True)
class Rule:
    """A condition in Spark SQL that a row should meet; null counts as met."""

    condition: str
    severity: Severity
    name: str


def warn(condition: str, name: str = "") -> Rule:
    """A rule whose failures are odd but harmless. Its name is its condition, unless `name` is given."""
    return Rule(condition, Severity.WARN, name or condition)


def quarantine(condition: str, name: str = "") -> Rule:
    """A rule whose failures would make gold wrong."""
    return Rule(condition, Severity.QUARANTINE, name or condition)


def fail(condition: str, name: str = "") -> Rule:
    """A rule that no row may fail: the run ends, and the previous tables stay."""
    return Rule(condition, Severity.FAIL, name or condition)


def no_formula(column: str) -> Rule:
    """A warning about texts that a spreadsheet takes for a formula, because of what they begin with."""
    return warn(
        f"left(`{column}`, 1) NOT IN ('=', '+', '-', '@', '\\t', '\\r')", f"{column} is no formula in a spreadsheet"
    )


@dataclass(frozen=True)
class Fake:
    """How the seed makes up a value: a function in `pipelines/seed/fake.py`, arguments, share of nulls (0-1)."""

    maker: str
    args: tuple[str | int, ...] = ()
    nulls: float = 0.0


def fake(maker: str, *args: str | int, nulls: float = 0.0) -> Fake:
    """A `Fake` with its arguments in a row: `fake("between", 18, 95, nulls=0.01)`."""
    return Fake(maker, args, nulls)


@dataclass(frozen=True)
class Reference:
    """A column that refers to the key of `table`, the parent.

    `columns`: the parent's columns that rules may use, as `parent.column`. `with_columns`: when the key has several
    columns, the others of this table that refer to it, in the key's order.
    """

    table: "Table"
    columns: tuple[str, ...] = ()
    with_columns: tuple[str, ...] = ()


QUOTE = '"'  # of a field that has delimiters

# Encodings of Python's own, for names and literals: they read lines otherwise than they stand there.
NO_ENCODINGS = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")


@dataclass(frozen=True)
class Csv:
    """How to read the text of a file.

    `encoding`: Python's name; a byte order mark at the start is skipped. `null`: the unquoted field that means null.
    `decimal_comma`: the columns whose numbers have a decimal comma. `rest`: the last column takes the rest of its line,
    delimiters included, unless it is quoted or not the last of its file.
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    line_end: str = "\n"
    null: str = ""
    decimal_comma: tuple[str, ...] = ()
    rest: bool = False

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in f"{QUOTE}\r\n":
            raise ValueError(f"delimiter {self.delimiter!r} must be one character other than {QUOTE} and line ends")
        if self.line_end not in ("\n", "\r\n", "\r"):
            raise ValueError(f"line end {self.line_end!r} must be \\n, \\r\\n or \\r")
        text, encoding = f"a{self.delimiter}{QUOTE}0{QUOTE}\r\n", codecs.lookup(self.encoding).name
        with suppress(LookupError, UnicodeError):
            if encoding not in NO_ENCODINGS and text.encode(encoding).decode(encoding) == text:
                return
        raise ValueError(
            f"lines cannot be read in encoding {self.encoding!r}; name another, as utf-8, utf-16 or cp1252"
        )


@dataclass(frozen=True)
class Files:
    """The source of a bronze table that comes from files instead of PostgreSQL: files with a header in the landing
    folder of its domain.

    `pattern`: matches their names. `replaced`: a file with a known name and other content replaces the earlier one;
    otherwise that is an error.
    """

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
    """One column: its Spark SQL type, its comment, and what it promises.

    A key is never null. `optional`: the source may lack the column; it is null then. `source`: the column of the input
    table that it is made from; its own name by default. `labels`: the known values; others pass with a warning.
    `serial`: not in the files, but counted from 1, one number a line, in the order in which the files arrive. `total`:
    what its values add up to; the run proves it.
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
        """The name of the input's column that this one is made from."""
        return self.source or self.name

    @property
    def foreign_key(self) -> tuple[str, ...]:
        """The columns that together refer to the key of another table, this one first."""
        return (self.name, *(self.reference.with_columns if self.reference else ()))


@dataclass(frozen=True)
class Table:
    """One table. `module` is the declaring module's `__name__`, `doc` its docstring.

    `source`: its name in the source, if that cannot be a module name. `one_row_per`: the input of which each row gives
    exactly one row here, made of that row and of what its references reach; the run proves it. `csv`: exported in key
    order, without the columns that start with `_`. `order`: the columns to sort by for a person, `-` for the greatest
    first; the key by default. `history`: silver keeps all versions of its rows in a second table; not for card numbers,
    which would stay readable there after they are masked. `fake_rows`: rows that the seed makes per movement.
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
            raise ValueError(f"{self.module}: card numbers may not have a history")
        if clash := {column.name for column in self.columns} & self.parents:
            raise ValueError(
                f"{self.module}: a rule cannot tell column {min(clash)} from the referenced table of that name"
            )
        if self.files and self.files.replaced and any(column.serial for column in self.columns):
            raise ValueError(f"{self.module}: serial numbers would change when a file is replaced")

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
        """The columns whose sums runs prove from layer to layer."""
        return tuple(column for column in self.columns if is_summed(column.type))

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.key)

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """The rules of the columns, then those of the table."""
        return (*(rule for column in self.columns for rule in column.rules), *self.rules)

    @property
    def references(self) -> tuple[tuple[Column, Reference], ...]:
        """The columns that refer to other tables, each with its reference."""
        return tuple((column, column.reference) for column in self.columns if column.reference)

    @property
    def parents(self) -> set[str]:
        """The names of the tables that it refers to."""
        return {reference.table.name for _, reference in self.references}

    def carried(self, **references: Reference) -> tuple[Column, ...]:
        """The columns for a table made from this one, some of them with a reference. Raises LookupError."""
        for name in references:
            self[name]
        return tuple(
            replace(column, fake=None, serial=False, optional=False, reference=references.get(column.name))
            for column in self.columns
        )

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise LookupError(f"{self.module} has no column {name!r}")
