"""New files of a table until they are proved: a run that fails leaves no rows behind."""

from types import TracebackType

from pipelines.lake.changes import Target


class UnprovedFiles:
    """Names of files in a table's folder that nobody has proved yet. As a context: when it fails, none stays."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.names: list[str] = []

    @property
    def paths(self) -> list[str]:
        return self._target.paths(self.names)

    def add(self, *names: str) -> None:
        self.names += names

    def swap(self, names: list[str]) -> None:
        """Removes the files, and has others in their place."""
        self._target.remove(self.names)
        self.names = names

    def __enter__(self) -> "UnprovedFiles":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if error is not None:
            self._target.remove(self.names)
