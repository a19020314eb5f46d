"""HTTP that does not wait for ever: whatever a server sends, headers and sizes of chunks too, must come at some pace."""

from __future__ import annotations

import functools
import http.client
import io
import time
import urllib.request
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pace:
    """At least so many bytes in each window of so many seconds."""

    least: int
    window: float


def opener(pace: Pace) -> urllib.request.OpenerDirector:
    """What `urllib.request.urlopen` does, but a response that is slower than `pace` ends with TimeoutError."""

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(functools.partial(_Plain, pace=pace), request)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(functools.partial(_Secure, pace=pace), request)

    return urllib.request.build_opener(Plain, Secure)


class _Paced:
    """A connection whose socket counts what is read from it."""

    def __init__(self, *arguments: Any, pace: Pace, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pace = pace

    def connect(self) -> None:
        super().connect()
        self.sock = _Socket(self.sock, self._pace)


class _Plain(_Paced, http.client.HTTPConnection):
    pass


class _Secure(_Paced, http.client.HTTPSConnection):
    pass


class _Socket:
    """A socket; what is read from its files is counted."""

    def __init__(self, inner: Any, pace: Pace) -> None:
        self._inner, self._pace = inner, pace

    def makefile(self, mode: str, *arguments: Any, **options: Any) -> io.BufferedReader:
        """As of a socket, for the one mode in which http.client opens it."""
        assert mode == "rb"
        return io.BufferedReader(_Counted(self._inner.makefile("rb", buffering=0), self._pace))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Counted(io.RawIOBase):
    """Bytes of a response; a window begins with it, and again with each that has brought enough."""

    def __init__(self, inner: Any, pace: Pace) -> None:
        self._inner, self._pace = inner, pace
        self._began, self._arrived = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._inner.readinto(buffer)
        self._arrived += count or 0
        if count and time.monotonic() - self._began >= self._pace.window:
            if self._arrived < self._pace.least:
                raise TimeoutError(f"{self._arrived} bytes in {self._pace.window:g} seconds are too few")
            self._began, self._arrived = time.monotonic(), 0
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()
