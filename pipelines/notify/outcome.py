"""What a call of the command line, or a stream's micro-batch, has come to: told once, to all who want to know."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Outcome:
    """`domain`: what DOMAIN said, empty where it said nothing. `line`: what the command line says of a failure, without
    keys of rows."""

    targets: tuple[str, ...]
    domain: str
    code: int
    kind: str
    line: str
    started: datetime
    seconds: float

    @property
    def is_of_settings(self) -> bool:
        """Whether it failed before it was known where the lake is."""
        return self.kind == "settings"
