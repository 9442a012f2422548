"""What is left of a folder when the power goes: what the process had brought to the disk, and perhaps more."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import pytest

Names = dict[Path, dict[str, int]]  # of each folder the names in it, each with the number of its file; 0 for a folder


@dataclass(frozen=True)
class Cut:
    """What the disk has at a moment: the names of files that it has to have, those that it may have, the contents that
    it has to have, by the number of the file."""

    safe: Names
    possible: Names
    contents: dict[int, bytes]

    def restore(self, folder: Path, target: Path, with_names: bool) -> None:
        """Makes the folder anew as the cut left it: with the safe names alone, or `with_names` that were not synced,
        whose files are cut off: they are empty, or end in the middle, or are all zeros."""
        target.mkdir(parents=True)
        names = self.possible if with_names else self.safe
        for number, (name, file) in enumerate(sorted(names.get(folder, {}).items())):
            if not file:
                self.restore(folder / name, target / name, with_names)
            elif file in self.contents:
                (target / name).write_bytes(self.contents[file])
            else:
                (target / name).write_bytes((b"", b'{"commitInfo": {"time', b"\0" * 700)[number % 3])


@dataclass
class Disk:
    """Follows what the process brings to the disk of a folder, where everything is safe at the begin."""

    folder: Path
    cuts: list[Cut] = field(default_factory=list)
    syncs: list[Path] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=dict)  # open files: no number is used again

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this lasts, each sync of a file or of a folder adds a cut."""
        safe = self._names()
        contents = {file: _content(descriptor) for file, descriptor in self.held.items()}
        self.cuts.append(Cut(safe, safe, contents))

        def sync(descriptor: int) -> None:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_relative_to(self.folder):
                with in_turns:
                    self.syncs.append(path)
                    last, names = self.cuts[-1], self._names()
                    safe, contents = dict(last.safe), dict(last.contents)
                    if path.is_dir():
                        safe[path] = names[path]
                    else:
                        contents[os.fstat(descriptor).st_ino] = _content(descriptor)
                    self.cuts.append(Cut(safe, names, contents))

        in_turns = Lock()

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", sync)
                yield
        finally:
            for descriptor in self.held.values():
                os.close(descriptor)

    def _names(self) -> Names:
        return {Path(folder): self._files(Path(folder)) for folder, _, _ in os.walk(self.folder)}

    def _files(self, folder: Path) -> dict[str, int]:
        files: dict[str, int] = {}
        for entry in os.scandir(folder):
            files[entry.name] = 0 if entry.is_dir() else entry.inode()
            if not entry.is_dir() and entry.inode() not in self.held:
                self.held[entry.inode()] = os.open(entry.path, os.O_RDONLY)
        return files


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
