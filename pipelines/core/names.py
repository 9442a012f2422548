"""Names that every room uses for the same thing."""

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


# In `_rescued`, of a file: a line that is no row, why it is none, where it stands; the column that took the rest.
LINE, WHY, AT, REST = "_line", "_why", "_at", "_rest"
