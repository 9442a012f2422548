"""Names and texts as SQL writes them: quoted, never pasted. Long SQL lies in files beside its module."""

from pathlib import Path


def identifier(name: str) -> str:
    """A name as the SQL of PostgreSQL and DuckDB writes it."""
    return '"' + name.replace('"', '""') + '"'


def spark_identifier(name: str) -> str:
    """A name as Spark's SQL writes it."""
    return "`" + name.replace("`", "``") + "`"


def duckdb_literal(text: str) -> str:
    """A text as DuckDB's SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def postgres_literal(text: str) -> str:
    """A text as PostgreSQL's SQL writes it, under any setting of the server."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def spark_literal(text: str) -> str:
    """A text as Spark's SQL writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def spark_literal_in_python(text: str) -> str:
    """The same inside a raw text of Python that a person copies: no character ends either, or commands a terminal."""
    shown = (c if c.isprintable() and c not in "\"'\\" else f"\\U{ord(c):08x}" for c in text)
    return f"'{''.join(shown)}'"


def read_sql(module: str, name: str) -> str:
    """The text of an SQL file in the folder of a module, which gives its `__file__`."""
    return Path(module).with_name(name).read_text("utf-8")
