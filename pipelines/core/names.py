"""Names that every room uses for the same thing."""

LAYERS = ("bronze", "silver", "gold")


EMBEDDED = "embedded"


QUARANTINE, HISTORY = "__quarantine", "__history"


DELETED = "_deleted"


# In `_rescued`, of a file: a line that is no row, why it is none, where it stands; the column that took the rest.
LINE, WHY, AT, REST = "_line", "_why", "_at", "_rest"
