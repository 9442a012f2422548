"""How a call of the command line, or a stream's micro-batch, ended."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Outcome:
    """How a call ended. `domain`: the domains that were named, separated by commas. `line`: the message of a failure,
    without keys of rows."""

    targets: tuple[str, ...]
    domain: str
    code: int
    kind: str
    line: str
    started: datetime
    seconds: float

    @property
    def is_of_settings(self) -> bool:
        """Whether it failed before the lake's place was known."""
        return self.kind == "settings"
