"""The command line: `python -m pipelines <target>...`, one word for each make target. `make help` lists them."""

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.cli.words import COMMANDS, PROGRAM, Request, parse
from pipelines.core.console import starting
from pipelines.core.signals import STOPS
from pipelines.core.texts import trace
from pipelines.core.umask import closed_to_others
from pipelines.notify.outcome import Outcome

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


@closed_to_others()
def run_command(words: list[str], spark: "SparkSession | None" = None, program: str = PROGRAM) -> int:
    """The same in a process that ends with it, and keeps its signal handlers until then. Help and messages call it
    `program`."""
    _prepare_process()
    started, request, settings, failure, exit_code = datetime.now(UTC), Request(), None, None, 0
    try:
        parsed = parse(words, program)
        if isinstance(parsed, int):
            return parsed
        request = parsed
        with starting(_asks_for_json(request)):
            from pipelines.run.call import read_settings

        settings = read_settings(request.settings)
        if settings.log != "debug":
            logging.disable()  # libraries complain about interrupted calls
        with starting(settings.log_format == "json"):
            from pipelines.cli.targets import run_targets

        exit_code = run_targets(settings, request, spark)
    except BaseException as error:  # that Rust panics, too
        failure = error
        if settings and settings.log == "debug" and isinstance(error, Exception):
            print(trace(error), file=sys.stderr)
    from pipelines.run.call import end_call

    targets = tuple(target for target in COMMANDS if target in request.targets)
    call = Outcome(targets, ",".join(request.domain), started)
    return end_call(call, request.settings, settings, failure, exit_code)


def _asks_for_json(request: Request) -> bool:
    """Whether words or environment ask for JSON, before the settings are read."""
    typed = dict(pair.split("=", 1) for pair in request.settings if "=" in pair)
    return (os.environ | typed).get("LAKEHOUSE_LOG_FORMAT") == "json"


def _prepare_process() -> None:
    """A terminal of another encoding does not end a run; SIGTERM and SIGHUP end it in an orderly way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, lambda number, _: sys.exit(128 + number))


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
