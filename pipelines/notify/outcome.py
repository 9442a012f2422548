"""How a call of the command line, or a stream's micro-batch, ended."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Outcome:
    """A call and, once it has ended, how. `domain`: the domains that were named, separated by commas. `line`: the
    message of a failure, without keys of rows."""

    targets: tuple[str, ...]
    domain: str
    started: datetime
    code: int = 0
    kind: str = "done"
    line: str = ""
    seconds: float = 0.0

    @property
    def is_of_settings(self) -> bool:
        """Whether it failed before the lake's place was known."""
        return self.kind == "settings"
