"""How each PostgreSQL type is read, so that it arrives exactly or as text, and which values a column cannot hold."""

from dataclasses import dataclass, replace

from pipelines.core.sql import identifier, postgres_literal
from pipelines.core.types import TYPES, Type, type_of
from pipelines.sources.postgres.snapshot import SourceColumn

# PostgreSQL's types that one of ours holds exactly; a column of any other type that no contract names becomes text.
NATIVE = {row.source: row for row in TYPES.values() if row.source}

MONEY_PLACES = 2  # of money under our settings; in its database it may have others, for the same bits

INT64_DIGITS = 18  # that 64 bits always hold


# Arrow and Delta hold the years 1 to 9999; PostgreSQL also knows infinity, BC and five-digit years.
FIRST_DAY, AFTER_LAST_DAY = "0001-01-01", "10000-01-01"


@dataclass(frozen=True)
class Reading:
    """How a column is read: `expression` (SQL) gives its value; `fits` is the SQL condition for a value that bronze can
    hold, None if it can hold all; `scale` is that of a decimal that 64 bits hold."""

    expression: str
    fits: str | None = None
    scale: int | None = None

    @property
    def value(self) -> str:
        """The SQL of the value: null if it does not fit."""
        return f"CASE WHEN {self.fits} THEN {self.expression} END" if self.fits else self.expression

    @property
    def sent(self) -> str:
        """The SQL of what is sent: for a short decimal its unscaled integer, since ADBC sends a numeric as text."""
        return self.value if self.scale is None else f"({self.value} * {10**self.scale})::int8"


def natural_type(column: SourceColumn) -> str:
    """The Spark SQL type that a column gets when no contract names it."""
    if column.type in ("numeric", "money") and column.precision is not None and column.scale is not None:
        fits = 0 <= column.scale <= column.precision <= 38
        return f"decimal({column.precision},{column.scale})" if fits else "string"
    return NATIVE[column.type].name if column.type in NATIVE else "string"


def read_as(column: SourceColumn, target: str) -> Reading | None:
    """How to read `column` as the Spark SQL type `target`; None if the types are of different families."""
    name, source, wanted = identifier(column.name), column.type, type_of(target)
    if target == "string":
        # A cast takes away the blanks that pad char(n). A float has no exact text; without a contract it stays a float.
        plain = {"text": name, "varchar": name, "bpchar": f"{name}::text"}
        text = plain.get(source) or _printed(name, f"{name} IS DISTINCT FROM NULL")
        return None if source in ("float4", "float8") else Reading(text)
    if wanted.is_integer:
        return _as_integer(column, wanted)
    if wanted.is_decimal:
        reading = _as_decimal(column, wanted.precision, wanted.scale)
        return replace(reading, scale=wanted.scale) if reading and wanted.precision <= INT64_DIGITS else reading
    midnight = (source, target) == ("date", "timestamp_ntz")
    if target in ("date", "timestamp_ntz", "timestamp") and (source == wanted.source or midnight):
        zone = "+00" if target == "timestamp" else ""
        return Reading(
            f"{name}::timestamp" if midnight else name,
            f"{name} >= '{FIRST_DAY}{zone}' AND {name} < '{AFTER_LAST_DAY}{zone}'",
        )
    if source == wanted.source or (source, target) == ("float4", "double"):
        return Reading(name)
    return None


def _printed(name: str, condition: str) -> str:
    """The SQL of the text that a value's type prints, as psql and COPY show it: a cast to text may be another one, and
    anybody can make one for a type of their own. Null unless the condition holds; of a null it would be empty."""
    return f"CASE WHEN {condition} THEN pg_catalog.concat({name}) END"


def _integer(column: SourceColumn) -> Type | None:
    """The integer type that holds all values of a column, if it has one."""
    return NATIVE[column.type] if column.type in NATIVE and NATIVE[column.type].is_integer else None


def _as_integer(column: SourceColumn, wanted: Type) -> Reading | None:
    most = 2 ** (wanted.bits - 1) - 1
    name, bounds = identifier(column.name), f"BETWEEN {-most - 1} AND {most}"
    if source := _integer(column):
        return Reading(name, None if source.bits <= wanted.bits else f"{name} {bounds}")
    if column.type == "numeric":
        return Reading(f"{name}::int8", f"{name} = trunc({name}) AND {name} {bounds}")
    return None


def _as_decimal(column: SourceColumn, precision: int, scale: int) -> Reading | None:
    name, whole, is_money = identifier(column.name), precision - scale, column.type == "money"
    cast = f"::numeric({precision},{scale})"
    if source := _integer(column):
        digits = len(str(2 ** (source.bits - 1)))
        return Reading(name + cast, None if digits <= whole else f"abs({name}::numeric) < 1e{whole}")
    if is_money:
        name = f"({name}::numeric * 1e{MONEY_PLACES - (column.scale or 0)})"
    elif column.type != "numeric":
        return None
    declared = column.precision is not None and column.scale is not None
    if declared and column.scale <= scale and column.precision - column.scale <= whole:  # type: ignore[operator]
        is_exact = column.scale == scale and not is_money
        return Reading(name if is_exact else name + cast, None if is_money else f"{name} <> 'NaN'")
    if is_money and column.scale != MONEY_PLACES:
        return None  # what is rescued is printed under our settings
    return Reading(name + cast, f"{name} = round({name}, {scale}) AND abs({name}) < 1e{whole}")


def select_list(readings: dict[str, Reading]) -> str:
    """The SELECT list: each column by name, null if its value does not fit, and `_rescued`."""
    items = [f"{reading.sent} AS {identifier(column)}" for column, reading in readings.items()]
    return ", ".join([*items, f'{rescued(readings)} AS "_rescued"'])


def rescued(readings: dict[str, Reading]) -> str:
    """The SQL of `_rescued`: a JSON object from column to the source's text, null if every value fits."""
    checked = {column: reading.fits for column, reading in readings.items() if reading.fits}
    if not checked:
        return "NULL::text"
    # A null makes its condition null; it is no misfit.
    all_fit = " AND ".join(f"({fits}) IS NOT FALSE" for fits in checked.values())
    names = ", ".join(postgres_literal(column) for column in checked)
    texts = ", ".join(_printed(identifier(column), f"NOT ({fits})") for column, fits in checked.items())
    misfits = f"jsonb_strip_nulls(json_object(ARRAY[{names}]::text[], ARRAY[{texts}])::jsonb)::text"
    return f"CASE WHEN {all_fit} THEN NULL ELSE {misfits} END"
