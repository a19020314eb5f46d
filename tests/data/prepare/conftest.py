"""A real server on this machine, with the habits of bad ones."""

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tests.waiting import PATIENCE


class Server(ThreadingHTTPServer):
    """Serves `files`; `habits` says, in order, how requests are answered, and then all are answered well.

    A habit is a status ("404"), "cut N" (the connection closes after N bytes of the body), "whole" (Range is not
    known), "whole cut N", "changed" (the file becomes another one before the answer), "stale" (and its part is sent
    all the same, though the old version was asked for), "shifted" (another part than the one asked for), "chunked"
    and "chunked cut N" (no length is told), "silent" (no answer at all), or "drip", "drip headers", "drip chunks" (a byte now and then, for ever).
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.habits: list[str] = []
        self.asked: list[tuple[str, str | None]] = []
        self.etags, self.weak = True, False
        self.hold = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is what these tests are about."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        server, name = self.server, self.path[1:]
        asked = self.headers.get("Range")
        server.asked.append((name, asked))
        habit = server.habits.pop(0) if server.habits else ""
        if habit == "silent":
            server.hold.wait(PATIENCE)
            self.close_connection = True
            return
        if habit.startswith("drip"):
            self.drip(habit.removeprefix("drip").strip())
            return
        if habit.isdigit() or name not in server.files:
            self.answer(int(habit or 404), b"", {"Retry-After": "0"})
            return
        if habit in ("changed", "stale"):
            server.files[name] = bytes(255 - value for value in server.files[name])
        data, headers = server.files[name], {}
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        if server.etags:
            headers["ETag"] = f"W/{etag}" if server.weak else etag
        first, status = 0, 200
        matches = self.headers.get("If-Range") in (None, etag) or habit in ("stale", "shifted")
        if asked is not None and matches and not habit.startswith("whole"):
            first, status = int(asked.removeprefix("bytes=").removesuffix("-")), 206
            if first >= len(data):
                self.answer(416, b"", {})
                return
            first -= 1 if habit == "shifted" else 0
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        cut = int(habit.rpartition(" ")[2]) if "cut" in habit else None
        self.answer(status, data[first:], headers, cut, habit.startswith("chunked"))

    def drip(self, what: str) -> None:
        """Endless bytes, one at a time."""
        self.close_connection = True
        status = b"HTTP/1.1 200 OK\r\n"
        begin = {
            "": b"Content-Length: 1000000\r\n\r\n",
            "headers": b"X: ",
            "chunks": b"Transfer-Encoding: chunked\r\n\r\n",
        }
        try:
            self.wfile.write(status + begin[what])
            while not self.server.hold.is_set():
                time.sleep(0.002)
                self.wfile.write(b"0")
                self.wfile.flush()
        except OSError:
            pass  # nobody listens any more

    def answer(
        self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None, chunked: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = body[:cut]
        # A chunk of no bytes is the end of a whole body.
        self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) if chunked and sent else sent)
        if cut is None:
            self.wfile.write(b"0\r\n\r\n" if chunked else b"")
        self.close_connection = cut is not None or status != 206

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.hold.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def content() -> bytes:
    return np.random.default_rng(0).bytes(1_000_000)
