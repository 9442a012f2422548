"""A webhook on this machine that keeps what it was sent, and the end of a call to tell it of."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipelines.notify.outcome import Outcome

SECRET = "s3cret-path"


Answer = Callable[["Hook"], int]


@dataclass
class Hook:
    """What a webhook on this machine was sent."""

    port: int
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        return {"LAKEHOUSE_ALERT__WEBHOOK_URL": f"http://127.0.0.1:{self.port}/{SECRET}", "no_proxy": "127.0.0.1"}


@contextmanager
def listening(answer: Answer = lambda hook: 200) -> Iterator[Hook]:
    """A server that takes alerts and says what `answer` says; a redirect leads to itself."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert self.path == f"/{SECRET}" and self.headers["Content-Type"] == "application/json"
            hook.bodies.append(json.loads(text))
            self.send_response(answer(hook))
            self.send_header("Location", f"http://127.0.0.1:{hook.port}/{SECRET}")
            self.end_headers()

        def do_GET(self) -> None:
            hook.bodies.append({"followed": self.path})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hook = Hook(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


NOW = datetime(2026, 11, 21, 2, 15, tzinfo=UTC)


def outcome(code: int = 0, started: datetime = NOW, **given: Any) -> Outcome:
    usual: dict[str, Any] = {"targets": ("gold",), "domain": "", "kind": "k", "line": "", "seconds": 1.0}
    return Outcome(**usual | given, code=code, started=started)
