"""The class-data archive is used where it fits, and a session starts without a word where it does not."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from conf.settings import PROJECT
from pipelines.spark import class_data_archive
from tests.support.process import clean_environment


def test_other_jars_or_another_java_want_another_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_data_archive, "JARS", tmp_path)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    (tmp_path / "one.jar").write_bytes(b"1")
    (tmp_path / "release").write_text("JAVA_VERSION=17.0.1")
    assert class_data_archive.make(partial(Path.write_text, data="classes"))
    first = class_data_archive.archive()
    assert first is not None and str(first) in class_data_archive.options()
    os.utime(tmp_path / "one.jar", (1, 1))
    assert (class_data_archive.archive(), class_data_archive.options()) == (None, "")
    assert class_data_archive.make(partial(Path.write_text, data="more classes")) and not first.exists()
    (tmp_path / "release").write_text("JAVA_VERSION=17.0.2\n")
    assert (class_data_archive.archive(), class_data_archive.options()) == (None, "")


def test_an_image_that_cuts_times_to_seconds_keeps_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_data_archive, "JARS", tmp_path)
    jar = tmp_path / "one.jar"
    jar.touch()
    os.utime(jar, ns=(1_700_000_000_999_999_999,) * 2)
    assert class_data_archive.make(partial(Path.write_text, data="classes"))
    made = class_data_archive.archive()
    os.utime(jar, (1_700_000_000,) * 2)
    assert made is not None and class_data_archive.archive() == made


def test_a_training_that_fails_is_not_tried_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_data_archive, "JARS", tmp_path)

    def fails(file: Path) -> None:
        file.write_bytes(b"half an archive")
        raise RuntimeError

    assert not class_data_archive.make(fails)
    (left,) = tmp_path.iterdir()
    assert (class_data_archive.archive(), class_data_archive.options(), left.stat().st_size) == (left, "", 0)


def test_a_copy_of_the_project_finds_the_archive_through_a_link_to_the_jars(tmp_path: Path) -> None:
    for package in ("conf", "pipelines"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".jars").symlink_to(PROJECT / ".jars")
    command = [sys.executable, "-c", "from pipelines.spark.class_data_archive import _key; print(_key())"]
    environment = clean_environment(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == class_data_archive._key(), result.stderr
