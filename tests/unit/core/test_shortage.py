"""What the system has too little of is named as that, whichever library says so."""

import errno
import os
import resource

import pytest

from pipelines.core import shortage
from pipelines.core.errors import Fault


@pytest.mark.parametrize(
    ("error", "kind", "mend"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "storage", "ulimit -n"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "storage", "ulimit -n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/lake/secret"), "storage", "make room"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "storage", "quota"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "storage", "for writing"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory", "ulimit -v"),
        (MemoryError(), "memory", "ulimit -v"),
        (RuntimeError("can't start new thread"), "memory", "ulimit -v"),
        (ImportError("x.so: failed to map segment from shared object"), "memory", "ulimit -v"),
        (Exception('Kernel error\n  Os { code: 24, message: "Too many open files" }'), "storage", "ulimit -n"),
        ("Error occurred during initialization of VM\nCould not reserve enough space for heap", "memory", "ulimit -v"),
    ],
)
def test_a_shortage_has_its_word_its_code_and_its_mend(error: BaseException | str, kind: str, mend: str) -> None:
    fault = shortage.fault_of(error, "the lake")
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.code) == (kind, 5)
    assert str(fault).startswith("the lake: ") and mend in str(fault) and "secret" not in str(fault)


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EACCES, os.strerror(errno.EACCES))])
def test_another_error_is_none(error: Exception) -> None:
    assert shortage.fault_of(error) is None


@pytest.mark.parametrize(("files", "kind"), [(64, "storage"), (1024, None)])
def test_a_jvm_cannot_load_spark_with_few_files(monkeypatch: pytest.MonkeyPatch, files: int, kind: str | None) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, 4096))
    fault = shortage.few_files()
    assert (fault and fault.kind) == kind
