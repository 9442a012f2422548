"""A Docker server that starts nothing: it notes which containers are asked for and says how they ended."""

import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@contextmanager
def docker_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its address, and what containers were asked for. One ends with the number at the end of its command."""
    asked: list[dict[str, Any]] = []

    def answer(method: str, path: str, body: bytes) -> tuple[str, bytes]:
        if path.endswith("/containers/create"):
            asked.append(json.loads(body))
            return "application/json", b'{"Id": "c"}'
        if path.endswith("/attach"):
            line = f"said by {' '.join(asked[-1]['Cmd'])}\n".encode()
            return "application/vnd.docker.raw-stream", struct.pack(">BxxxL", 2, len(line)) + line
        if path.endswith("/wait"):
            code = re.search(r"\d*$", asked[-1]["Cmd"][-1])
            assert code
            return "application/json", json.dumps({"StatusCode": int(code[0] or 0)}).encode()
        known = {"/_ping": b"OK", "/version": b'{"ApiVersion": "1.44"}', "/images/json": b'[{"Id": "i"}]'}
        text = next((text for end, text in known.items() if path.endswith(end)), b'{"Config": {"Tty": false}}')
        return "application/json", text

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            kind, answered = answer(self.command, self.path.split("?")[0], body)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(answered)

        do_POST = do_DELETE = do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"tcp://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
