"""The begin and the end of a command or a Spark job: its settings; its last line, exit code, metrics and alerts."""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dotenv.parser import parse_stream

from conf.connection import LIBPQ_NAMES, PARAMETERS
from conf.settings import KNOWN, SECRET, SECRETS, Settings, SettingsError, load, load_outlets, read_secrets
from pipelines.core import shortage
from pipelines.core.console import Report
from pipelines.core.errors import Fault, UsageFault
from pipelines.notify.outcome import Outcome
from pipelines.notify.outlets import notify
from pipelines.sources.postgres.connection import forget_libpqs


def end_call(
    call: Outcome, given: Sequence[str], settings: Settings | None, failure: BaseException | None, exit_code: int = 0
) -> int:
    """Prints how a call ended, and notifies of it. `given`: its own settings, as NAME=VALUE, for when others cannot be
    read. Its exit code: that of its failure, or else `exit_code`."""
    settings = settings or outlets_only(given)
    kind, text, code = ended(failure)
    seconds = (datetime.now(UTC) - call.started).total_seconds()
    report, level = _report(settings), "error" if code else "info"
    if report.as_json:
        report.step(text or kind, level=level, kind=kind, code=code or exit_code, seconds=round(seconds, 3))
    elif text:
        report.step(f"{kind}: {text}", level=level)
    if settings and (code or "stream" not in call.targets):  # a stream's micro-batches have notified
        line = failure.public_text if isinstance(failure, Fault) else text
        with suppress(KeyboardInterrupt, SystemExit):  # a second signal does not wait for that
            for warning in notify(settings, replace(call, code=code, kind=kind, line=line, seconds=seconds)):
                report.step(warning, level="warning")
    return code or exit_code


def ended(failure: BaseException | None) -> tuple[str, str, int]:
    """The kind of a call's end, its line for people, its exit code."""
    match failure:
        case None | SystemExit(code=None):
            return "done", "", 0
        case SettingsError():
            return "settings", str(failure), UsageFault.code
        case Fault():
            return failure.kind, str(failure), failure.code
        case KeyboardInterrupt():
            return "stopped", "the last complete run is untouched", 128 + signal.SIGINT
        case SystemExit(code=int(code)):
            return "stopped", "", code  # after SIGTERM or SIGHUP perhaps nobody reads
        case _ if fault := known_fault(failure):
            return ended(fault)
        case _:
            return "unexpected", f"{type(failure).__name__}; LAKEHOUSE_LOG=debug shows where", 1


def known_fault(failure: BaseException) -> Fault | None:
    """The fault for an error that nobody turned into one: something is short, or Spark's JVM was killed."""
    if "py4j" in sys.modules:
        from pipelines.spark import faults

        if isinstance(failure, faults.SPARK_ERRORS):
            return faults.fault_of(failure)
    return shortage.fault_of(failure)


def read_settings(given: Sequence[str]) -> Settings:
    """The settings; warns about names that are not settings."""
    if sys.flags.optimize > 1:
        raise UsageFault("python -OO takes the docstrings away, which are the tables' comments; run it without -OO")
    settings, warnings = load(*read_sources(given), base=Path.cwd())
    for warning in warnings:
        _report(settings).step(warning, level="warning")
    forget_libpqs()
    return settings


def outlets_only(given: Sequence[str]) -> Settings | None:
    """The settings of metrics and alerts alone, to report that others are wrong; None if these are wrong, too."""
    try:
        sources = read_sources(given)
    except (SettingsError, OSError):
        sources = [dict(os.environ)]
    with suppress(SettingsError, RuntimeError):  # there may be no home
        return load_outlets(*sources, base=Path("/var/empty"))
    return None


def read_sources(given: Sequence[str]) -> list[dict[str, str]]:
    """Names and values from the command line, the environment, .env, systemd's credentials, /run/secrets."""
    problems = [f"--set {pair.split('=')[0]}: write NAME=VALUE" for pair in given if "=" not in pair]
    line = dict(pair.split("=", 1) for pair in given if "=" in pair)
    problems += [
        f"--set {name}: anybody can read a command line; use the environment or .env"
        for name, value in line.items()
        if name.endswith(SECRETS) or (name in (PARAMETERS, *LIBPQ_NAMES) and SECRET.search(value))
    ]
    problems += [f"--set {name}: there is no such setting" for name in line if name not in KNOWN]
    if problems:
        raise SettingsError(problems)
    folders = [Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/run/secrets"), Path("/run/secrets")]
    try:
        file = read_env(Path.cwd() / ".env")
        secrets = [read_secrets(folder) for folder in folders]
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise SettingsError(["the working folder is gone; change to one that is there"]) from error
        file_name = error.filename if isinstance(error, OSError) else ".env or a file of a secret"
        raise SettingsError(
            [f"{file_name} cannot be read as UTF-8 text; correct its rights or its encoding"]
        ) from error
    return [line, dict(os.environ), file, *secrets]


def read_env(path: Path) -> dict[str, str]:
    """The names and values of a .env file, without interpolation. Raises SettingsError naming each wrong line."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        bindings = list(parse_stream(file))
    if wrong := [str(binding.original.line) for binding in bindings if binding.error]:
        raise SettingsError([f"{path.name}: line {', '.join(wrong)} cannot be read; write NAME=value"])
    return {binding.key: binding.value for binding in bindings if binding.key and binding.value}


def _report(settings: Settings | None) -> Report:
    return Report(as_json=bool(settings and settings.log_format == "json"))
