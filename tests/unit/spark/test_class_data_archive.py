"""The class-data archive is used where it fits, and a session starts without a word where it does not."""

import os
from functools import partial
from pathlib import Path

import pytest

from pipelines.spark import class_data_archive


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
