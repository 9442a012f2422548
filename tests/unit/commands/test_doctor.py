"""The doctor: each thing that a run needs is ok, or its line says how to mend it."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from conf import machine
from conf.settings import Settings, load
from pipelines.cli.main import main
from pipelines.commands import doctor
from pipelines.core import catalogue
from pipelines.core.errors import UsageFault
from pipelines.spark import class_data_archive

Memory = namedtuple("Memory", "available")
Disk = namedtuple("Disk", "free")


def settings_of(folder: Path, **given: str) -> Settings:
    settings, _ = load(
        {"LAKEHOUSE_ROOT": "lake"} | {f"LAKEHOUSE_{name}": text for name, text in given.items()}, base=folder
    )
    return settings


def mends(check: str, settings: Settings) -> list[str]:
    return [finding.mend for finding in getattr(doctor, check)(settings) if finding.mend]


def test_a_mistake_in_a_tables_file_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    assert len(list(doctor.tables(settings))) == 3 and mends("tables", settings) == []
    entries = catalogue.entries

    def broken(layer: str) -> object:
        if layer == "silver":
            raise UsageFault("silver/x/y.py: column id: there is no type bigit")
        return entries(layer)

    monkeypatch.setattr(catalogue, "entries", broken)
    assert mends("tables", settings) == ["silver/x/y.py: column id: there is no type bigit"]


def test_a_machine_with_little_memory_or_disk_gets_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 3 * 2**30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(64 * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(64 * 2**30))
    assert mends("memory", settings) == mends("disk", settings) == []
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(2 * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(2**30))
    (memory,) = mends("memory", settings)
    assert "LAKEHOUSE_SPARK__DRIVER_MEMORY" in memory and "2.5 GB" in memory
    assert all("make maintain" in mend for mend in mends("disk", settings)) and mends("disk", settings)
    assert mends("memory", settings_of(tmp_path, SPARK__DRIVER_MEMORY="512m")) == []


def test_a_container_has_no_more_memory_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(64 * 2**30))
    monkeypatch.setattr(machine, "memory_bytes", lambda: 2 * 2**30)
    assert mends("memory", settings_of(tmp_path))


def test_a_folder_that_we_may_not_write_or_others_may_gets_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path)
    assert mends("rights", settings) == []
    settings.silver_path.mkdir(parents=True)
    settings.silver_path.chmod(0o777)
    assert mends("rights", settings) == [f"others may write to it: chmod go-w {settings.silver_path}"]
    settings.silver_path.chmod(0o700)
    monkeypatch.setattr(os, "access", lambda path, _: path != settings.silver_path)
    (mend,) = mends("rights", settings)
    assert "LAKEHOUSE_SILVER_PATH" in mend and str(settings.silver_path) in mend


def test_jars_that_are_missing_a_locale_that_is_not_utf8_and_a_server_that_is_not_there_get_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, POSTGRES__HOST="127.0.0.1", POSTGRES__PORT="1", POSTGRES__DATABASE="d", POSTGRES__USER="u", POSTGRES__PASSWORD="segredo")  # fmt: skip
    (mend,) = mends("source", settings)
    assert "127.0.0.1:1/d" in mend and "segredo" not in mend
    assert mends("locale", settings) == []
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    assert mends("locale", settings) == ["set LC_ALL=C.UTF-8"]
    monkeypatch.setattr(class_data_archive, "JARS", tmp_path)
    assert "run `make setup`" in mends("packages", settings)
    cluster = settings_of(tmp_path, SPARK__MASTER="spark://127.0.0.1:1")
    assert ["spark://127.0.0.1:1 does not answer" in mend for mend in mends("port", cluster)] == [True]


def test_a_jar_that_is_not_the_pinned_one_and_one_that_nobody_pinned_get_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = sorted(class_data_archive.JARS.glob("*.jar"))
    for jar in jars:
        (tmp_path / jar.name).symlink_to(jar)
    monkeypatch.setattr(class_data_archive, "JARS", tmp_path)
    assert mends("packages", settings_of(tmp_path)) == []
    (tmp_path / jars[1].name).unlink()
    (tmp_path / jars[1].name).write_bytes(jars[1].read_bytes()[:-1] + b"?")
    (tmp_path / "other.jar").touch()
    (mend,) = mends("packages", settings_of(tmp_path))
    assert mend.startswith(f"{jars[1].name}, other.jar: not what requirements/jars.sha256 says; remove .jars")


def test_the_command_ends_with_code_two_when_something_lacks_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(64 * 2**30))
    assert main(["doctor"]) == 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(0))
    assert main(["doctor"]) == 2
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed if line.startswith("lacks")] == ["memory:"]
    assert list(tmp_path.iterdir()) == []


def test_what_lacks_is_the_exit_code_of_a_call_that_also_has_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(0))
    monkeypatch.setattr("pipelines.commands.plan.plan", lambda *_: True)
    assert main(["doctor", "plan"]) == 2
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(64 * 2**30))
    assert main(["doctor", "plan", "--exit-code"]) == 10
