"""A TCP proxy on loopback in front of the tests' PostgreSQL, which makes the faults of a network."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from conf.settings import Postgres

# What a pooler answers that knows no `options`.
NO_OPTIONS = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0"

Fault = Callable[["Link"], None]


class Link:
    """One connection through the proxy; `sent` bytes have come from the server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server, self.sent = client, server, 0

    def reset(self) -> None:
        """Ends it as a router that forgot it does: with a reset."""
        with contextlib.suppress(OSError):
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.client.shutdown(socket.SHUT_RD)  # wakes who waits in it; else nothing is closed
            self.client.close()


class Proxy:
    """Passes everything on, but calls `fault` with the link for each piece that comes from the server."""

    def __init__(self, server: Postgres, port: int = 0, host: str = "127.0.0.1") -> None:
        self._target = f"{server.host}/.s.PGSQL.{server.port}"
        self._ended = threading.Event()
        self._listener = socket.create_server((host, port))
        port = self._listener.getsockname()[1]
        self.address = server.model_copy(update={"host": host, "port": port})
        self.fault: Fault = lambda _: None
        self.answers, self.certificate, self.links = True, Path(), list[Link]()
        self.takes_options = True
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()
        for link in self.links:
            link.reset()

    def stall(self, link: Link) -> None:
        """Nothing more comes; the line stays open."""
        self._ended.wait()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if not self.answers:
                self._ended.wait()
                return
            if self.certificate.name:
                client.recv(8)  # the request for TLS
                client.sendall(b"S")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate)
                client = context.wrap_socket(client, server_side=True)
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            link = Link(client, server)
            self.links.append(link)
            threading.Thread(target=self._pump, args=(client, server, None), daemon=True).start()
            self._pump(server, client, link)

    def _pump(self, source: socket.socket, target: socket.socket, link: Link | None) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(2**14):
                if not link and not self.takes_options and b"\0options\0" in piece:
                    source.sendall(b"E" + struct.pack("!I", 4 + len(NO_OPTIONS)) + NO_OPTIONS)
                    break
                if link:
                    link.sent += len(piece)
                    self.fault(link)
                target.sendall(piece)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def once(after: int, happens: Fault) -> Fault:
    """Something that happens to the first link that has `after` bytes, and never again."""
    lock = threading.Lock()

    def fault(link: Link) -> None:
        if link.sent > after and lock.acquire(blocking=False):
            happens(link)

    return fault


def slow(_: Link) -> None:
    time.sleep(0.002)
