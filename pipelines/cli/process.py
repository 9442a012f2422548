"""What a call of the command line changes in its process."""

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipelines.core.signals import STOPS


def prepare_process() -> None:
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
def restored_process() -> Iterator[None]:
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
                signal.signal(number, handler)
        logging.disable(logging_level)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
