"""Names that all rooms share."""

LAYERS = ("bronze", "silver", "gold")


def upstream_layer(layer: str) -> str:
    """The layer that silver or gold reads."""
    return LAYERS[LAYERS.index(layer) - 1]


def downstream_layer(layer: str) -> str | None:
    """The layer that reads bronze or silver; None of gold."""
    return {"bronze": "silver", "silver": "gold"}.get(layer)


EMBEDDED = "embedded"

QUARANTINE, HISTORY = "__quarantine", "__history"

DELETED = "_deleted"

# Keys in `_rescued` of rows from files: a line that is no row, why, its number; the column that took the rest.
LINE, WHY, AT, REST = "_line", "_why", "_at", "_rest"
