"""Names and texts as SQL writes them: quoted, never pasted."""


def identifier(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def pg_text(text: str) -> str:
    """A text as an SQL literal, for any setting of PostgreSQL."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def spark_identifier(name: str) -> str:
    """A name as Spark's SQL writes it."""
    return "`" + name.replace("`", "``") + "`"
