"""Names and texts as SQL writes them: quoted, never pasted."""


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal, for any setting of PostgreSQL."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def backquoted(name: str) -> str:
    """A name as Spark's SQL writes it."""
    return "`" + name.replace("`", "``") + "`"
