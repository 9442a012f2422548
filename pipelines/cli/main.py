"""The command line: `python -m pipelines <target>...`, one word for each make target. `make help` lists them."""

import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from dotenv.parser import parse_stream

from conf.settings import KNOWN, SECRETS, Settings, SettingsError, load, load_outlets, read_secrets
from pipelines.cli.words import COMMANDS, Request, parse
from pipelines.core.console import Screen, log_line, write
from pipelines.core.errors import Fault, UsageFault
from pipelines.core.signals import STOPS
from pipelines.notify.outcome import Outcome
from pipelines.notify.outlets import notify
from pipelines.sources.postgres.connection import forget_libpqs

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def main(words: list[str], spark: "SparkSession | None" = None) -> int:
    """Runs targets inside a process that goes on: its state is afterwards what it was. Returns an exit code of
    `docs/reference.md`.

    Work that needs Spark is done in `spark`, which is neither started nor ended here; without it the call has a session
    of its own.
    """
    with _restored_process():
        return run_command(words, spark)


def run_command(words: list[str], spark: "SparkSession | None" = None) -> int:
    """The same in a process that ends with it, and keeps its signal handlers until then."""
    _prepare_process()
    started, request, settings, failure, exit_code = datetime.now(UTC), Request(), None, None, 0
    try:
        parsed = parse(words)
        if isinstance(parsed, int):
            return parsed
        request = parsed
        settings = read_settings(request.settings)
        if settings.log != "debug":
            logging.disable()  # libraries complain about interrupted calls
        from pipelines.cli.targets import run_targets

        exit_code = run_targets(settings, request, spark)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        failure = error
        if settings and settings.log == "debug" and isinstance(error, Exception):
            traceback.print_exception(error)
    settings = settings or outlets_only(request.settings)
    kind, text, code = ended(failure)
    seconds = (datetime.now(UTC) - started).total_seconds()
    if settings and settings.log_format == "json":
        known = {"kind": kind, "code": code or exit_code, "seconds": round(seconds, 3)}
        say(log_line(text or kind, "error" if code else "info", **known))
    elif text:
        write(stderr(), f"{kind}: {' '.join(text.split())}", "error" if code else "info")
    targets = tuple(target for target in COMMANDS if target in request.targets)
    if settings and (code or "stream" not in targets):  # a stream's micro-batches have notified
        line = failure.public_text if isinstance(failure, Fault) else text
        outcome = Outcome(targets, ",".join(request.domain), code, kind, line, started, seconds)
        with suppress(KeyboardInterrupt, SystemExit):  # a second signal does not wait for that
            for warning in notify(settings, outcome):
                say_warning(settings, warning)
    return code or exit_code


def _prepare_process() -> None:
    """A terminal of another encoding does not end a run; SIGTERM and SIGHUP end it in an orderly way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, _exit)


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _restored_process() -> Iterator[None]:
    """Afterwards streams, signal handlers, logging and the environment are what they were before."""
    streams = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    handlers = {number: signal.getsignal(number) for number in STOPS}
    logging_level, environment = logging.root.manager.disable, dict(os.environ)
    try:
        yield
    finally:
        for stream, errors in streams:
            stream.reconfigure(errors=errors)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:  # else it was not set from Python
                    signal.signal(number, handler)
        logging.disable(logging_level)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


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
        case _:
            return "unexpected", f"{type(failure).__name__}; LAKEHOUSE_LOG=debug shows where", 1


def read_settings(given: Sequence[str]) -> Settings:
    """The settings; warns about names that are not settings."""
    settings, warnings = load(*read_sources(given), base=Path.cwd())
    for warning in warnings:
        say_warning(settings, warning)
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
        for name in line
        if name.endswith(SECRETS)
    ]
    problems += [f"--set {name}: there is no such setting" for name in line if name not in KNOWN]
    if problems:
        raise SettingsError(problems)
    folders = [Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/run/secrets"), Path("/run/secrets")]
    try:
        file = read_env(Path.cwd() / ".env")
        secrets = [read_secrets(folder) for folder in folders]
    except (OSError, UnicodeDecodeError) as error:
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


def say_warning(settings: Settings, text: str) -> None:
    if settings.log_format == "json":
        say(log_line(text, "warning"))
    else:
        write(stderr(), f"warning: {text}", "warning")


def say(line: str) -> None:
    stderr().out(line, highlight=False)


def stderr() -> Screen:
    return Screen(stderr=True, highlight=False, soft_wrap=True)
