"""The types that a contract may name, a row a type: what each engine calls it and how its values are written."""

from dataclasses import dataclass
from functools import cache

from conf.contract import DECIMAL
from pipelines.core.errors import UsageFault


@dataclass(frozen=True)
class Type:
    """A type by the name that Spark SQL and contracts use.

    `arrow`: the function of pyarrow that makes the type, and its arguments. `postgres`: the type that the seed creates.
    `source`: PostgreSQL's internal name of the type that becomes this one when no contract says otherwise.
    `csv`: SQL of DuckDB that writes the value `{}` as PostgreSQL prints it (`pg_float` is a macro of the export).
    `bits`: of an integer. `samples`: usual and extreme values as PostgreSQL prints them; fake data and tests use them.
    """

    name: str
    arrow: tuple[str | int, ...]
    duckdb: str
    postgres: str
    samples: tuple[str, ...]
    source: str = ""
    csv: str = "{}"
    bits: int = 0
    precision: int = 0
    scale: int = 0

    @property
    def is_integer(self) -> bool:
        return self.bits > 0

    @property
    def is_float(self) -> bool:
        return self.name in ("float", "double")

    @property
    def is_decimal(self) -> bool:
        return self.precision > 0


ANY_FLOATS = ("0.1", "-0", "1", "100000", "1e+15", "0.0001", "1e-05", "NaN", "Infinity", "-Infinity")
FLOATS = (*ANY_FLOATS, "3.4028235e+38", "1e-45")
DOUBLES = (*ANY_FLOATS, "1.7976931348623157e+308", "5e-324")
DATES = ("0001-01-01", "1582-10-10", "2024-02-29", "9999-12-31")
TIMES = ("0001-01-01 00:00:00", "1883-11-18 12:03:57", "2018-11-04 00:30:00.5", "9999-12-31 23:59:59.999999")
INSTANTS = tuple(f"{text}+00" for text in (*TIMES[:2], "2018-11-04 03:30:00.5", TIMES[3]))
BOOLEAN_CSV = "CASE {} WHEN true THEN 't' WHEN false THEN 'f' END"
INSTANT_CSV = "make_timestamp(epoch_us({}))::varchar || '+00'"

TYPES = {
    row.name: row
    for row in (
        Type("boolean", ("bool_",), "boolean", "boolean", ("t", "f"), "bool", csv=BOOLEAN_CSV),
        Type("smallint", ("int16",), "smallint", "smallint", ("-32768", "0", "32767"), "int2", bits=16),
        Type("integer", ("int32",), "integer", "integer", ("-2147483648", "0", "2147483647"), "int4", bits=32),
        Type("bigint", ("int64",), "bigint", "bigint", (f"{-(2**63)}", "0", f"{2**63 - 1}"), "int8", bits=64),
        Type("float", ("float32",), "float", "real", FLOATS, "float4", csv="pg_float({}, 6)"),
        Type("double", ("float64",), "double", "double precision", DOUBLES, "float8", csv="pg_float({}, 15)"),
        Type("string", ("string",), "varchar", "text", ("Conceição", "d'Ávila", '"a", b; c', " x ")),
        Type("binary", ("binary",), "blob", "bytea", (r"\x", r"\x00ff41"), "bytea", csv=r"'\x' || lower(hex({}))"),
        Type("date", ("date32",), "date", "date", DATES, "date"),
        Type("timestamp_ntz", ("timestamp", "us"), "timestamp", "timestamp", TIMES, "timestamp"),
        Type(
            "timestamp", ("timestamp", "us", "UTC"), "timestamptz", "timestamptz", INSTANTS, "timestamptz", INSTANT_CSV
        ),
    )
}


def type_of(name: str) -> Type:
    """The type of a column: a contract's, or an array of such, which tables of our own have. Raises UsageFault."""
    if name.startswith("array<"):
        element = type_of(name[len("array<") : -1])
        return Type(name, ("list_", element.name), f"{element.duckdb}[]", f"{element.postgres}[]", ())
    return contract_type(name)


@cache
def contract_type(name: str) -> Type:
    """The type that a contract names. Raises UsageFault."""
    match = DECIMAL.fullmatch(name)
    if match and 0 < int(match[1]) <= 38 and int(match[2]) <= int(match[1]):
        return _decimal(name, int(match[1]), int(match[2]))
    if name not in TYPES:
        raise UsageFault(f"there is no type {name}; there are {', '.join(TYPES)} and decimal(p,s) of up to 38 digits")
    return TYPES[name]


def _decimal(name: str, precision: int, scale: int) -> Type:
    digits = "9" * (precision - scale) or "0"
    most = f"{digits}.{'9' * scale}" if scale else digits
    least = f"0.{'1'.rjust(scale, '0')}" if scale else "1"
    # DuckDB writes no zero before the point when the type has no digit there.
    csv = r"regexp_replace({}::varchar, '^(-?)\.', '\10.')" if precision == scale else "{}"
    arrow, samples = ("decimal128", precision, scale), (most, f"-{most}", least)
    postgres = f"numeric({precision},{scale})"
    return Type(name, arrow, name, postgres, samples, csv=csv, precision=precision, scale=scale)
