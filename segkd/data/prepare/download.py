"""One file over HTTP, whole or absent: it resumes, tries again, and never mixes two versions of a file."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from segkd import __version__
from segkd.data.prepare.pace import Pace, opener
from segkd.foundation.errors import StorageError, UsageError
from segkd.foundation.files import atomic_write, fsync_folder, write_failure

Progress = Callable[[int, int | None], None]
"""Called with the units done and their total, None where nobody knows it."""

_PIECE = 1 << 18
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # what a server says when it may say something else later
_LONGEST = 60.0  # seconds between two tries


@dataclass(frozen=True)
class Retries:
    """How long a download goes on.

    Attributes:
        tries: in a row that brought fewer than `least` new bytes.
        pause: seconds before the second try, doubled for each further one, at most a minute.
        timeout: seconds without an answer that end a try.
        least: bytes that must arrive in each `window` seconds, or a try ends: a kilobyte a second.
    """

    tries: int = 6
    pause: float = 1.0
    timeout: float = 60.0
    least: int = 60_000
    window: float = 60.0


class _Again(Exception):
    """This try failed; the next may not. `wait`: the seconds that the server asks for."""

    def __init__(self, reason: object, wait: float = 0.0) -> None:
        super().__init__(" ".join(str(reason).split()) or type(reason).__name__)
        self.wait = wait


def is_url(source: str) -> bool:
    """Whether a source is to be downloaded.

    Raises:
        UsageError: it is a URL of another kind than http and https.
    """
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+)://", source)
    if scheme and scheme[1].lower() not in ("http", "https"):
        raise UsageError(f"{source}: only http and https addresses are downloaded")
    return scheme is not None


def download(
    url: str, target: Path, *, size: int | None = None, retries: Retries | None = None, progress: Progress | None = None
) -> None:  # fmt: skip
    """Bring `url` to `target`, which appears when it is whole; nothing happens where it is there already.

    What has arrived is kept in `TARGET.part`, and goes on from there (in this process or a later one) if the server
    still has the same version of the file: it is asked by Range and If-Range, and its answers are checked.

    Args:
        size: bytes that the file is known to have.

    Raises:
        StorageError: the server refuses, or nothing more arrives, or another size than `size` is offered, or the disk
            is full. The part stays.
    """
    if target.is_file():
        return
    retries, part, failures = retries or Retries(), _Part(target, url), 0
    mark = part.length
    while True:
        try:
            _fetch(url, part, size, retries, progress or (lambda done, total: None))
            part.finish()
            return
        except _Again as error:
            enough = part.length - mark >= retries.least
            failures, mark = (0, part.length) if enough else (failures + 1, mark)
            if failures >= retries.tries:
                goes_on = f"goes on from byte {part.length} in {part.path}" if part.length else "begins again"
                raise StorageError(f"{url}: {error}; tried {failures} times, the same command {goes_on}") from error
            time.sleep(max(min(_LONGEST, retries.pause * 2 ** max(failures - 1, 0)), min(_LONGEST, error.wait)))


class _Part:
    """`TARGET.part`, and in `TARGET.part.json` which version of the file it is a part of."""

    def __init__(self, target: Path, url: str) -> None:
        self.target, self.url = target, url
        self.path, self.about = (target.with_name(f"{target.name}.{suffix}") for suffix in ("part", "part.json"))
        self.validator: str | None = None
        self.size: int | None = None
        try:
            told = json.loads(self.about.read_text())
            if told["url"] == url and self.path.is_file():
                self.validator, self.size = told["validator"], told["size"]
        except (OSError, ValueError, TypeError, KeyError):
            pass  # without it the part is worth nothing

    @property
    def length(self) -> int:
        """Bytes that can be gone on from."""
        return self.path.stat().st_size if self.validator is not None and self.path.is_file() else 0

    def begin(self, validator: str | None, size: int | None) -> None:
        """Forget what is there: a version of the file begins at its first byte."""
        self.validator, self.size = validator, size
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"")
        except OSError as error:
            raise StorageError(write_failure(self.path, size or 0, error)) from error
        atomic_write(self.about, json.dumps({"url": self.url, "validator": validator, "size": size}))

    def finish(self) -> None:
        os.replace(self.path, self.target)
        fsync_folder(self.target.parent)
        self.about.unlink(missing_ok=True)


def _fetch(url: str, part: _Part, size: int | None, retries: Retries, progress: Progress) -> None:
    """One try: add what arrives to the part, and return when the file is whole."""
    headers = {"User-Agent": f"segkd/{__version__}", "Accept-Encoding": "identity"}
    if part.length and part.length == part.size:
        return
    if part.length:
        headers |= {"Range": f"bytes={part.length}-", "If-Range": str(part.validator)}
    try:
        request = urllib.request.Request(url, headers=headers)
        response = opener(Pace(retries.least, retries.window)).open(request, timeout=retries.timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                part.begin(None, None)
            if error.code in (416, *_PASSING):
                raise _Again(f"the server says {error.code} {error.reason}", _seconds(error.headers)) from error
            raise StorageError(f"{url}: the server says {error.code} {error.reason}; check the address") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise StorageError(f"{url}: not an address ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise StorageError(f"{url}: the server cannot prove who it is ({reason.verify_message})") from error
        raise _Again(reason) from error
    with response:
        if url.lower().startswith("https:") and not response.url.lower().startswith("https:"):
            raise StorageError(f"{url}: leads to {response.url}, which is not encrypted")
        _place(response, part, size)
        _receive(response, part, progress)
    arrived, expected = part.path.stat().st_size, part.size or size
    if expected is not None and arrived > expected:
        part.begin(None, None)
        raise StorageError(f"{url}: more than the {expected} bytes of the published file; it has changed")
    if expected is not None and arrived < expected:
        raise _Again(f"the connection ended after {arrived} of {expected} bytes")


def _place(response: http.client.HTTPResponse, part: _Part, size: int | None) -> None:
    """Bring the part to where the response goes on: its end, or its beginning for a whole or a new version."""
    headers = response.headers
    if response.status == 206:
        span = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+)", headers.get("Content-Range", ""))
        same = span and int(span[1]) == part.length and part.size in (None, int(span[2]))
        if not same or _validator(headers) not in (None, part.validator):
            part.begin(None, None)
            raise _Again("the file at the server changed, or the server sent another part of it")
        return
    if response.status != 200:
        raise StorageError(f"{response.url}: the server says {response.status}, and sends no file")
    length = headers.get("Content-Length", "")
    offered = int(length) if length.isdigit() else None
    if size is not None and offered not in (None, size):
        raise StorageError(f"{response.url}: the server has {offered} bytes, the published file {size}; it has changed")
    part.begin(_validator(headers), offered)


def _receive(response: http.client.HTTPResponse, part: _Part, progress: Progress) -> None:
    done = part.path.stat().st_size
    needed = (part.size or done) - done
    if needed > (free := shutil.disk_usage(part.path.parent).free):
        raise StorageError(f"{part.path}: no room ({needed} bytes needed, {free} free); free space, and run it again")
    with part.path.open("ab", buffering=0) as file:
        while True:
            progress(done, part.size)
            try:
                piece = memoryview(response.read1(_PIECE))
            except (OSError, http.client.HTTPException) as error:
                raise _Again(error) from error
            try:
                if not piece:
                    os.fsync(file.fileno())
                    return
                while piece:
                    done += (written := file.write(piece))
                    piece = piece[written:]
            except OSError as error:
                raise StorageError(write_failure(part.path, needed, error)) from error


def _validator(headers: Message) -> str | None:
    """What identifies a version of a file well enough to go on from its middle: a strong ETag, or else its date."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _seconds(headers: Message) -> float:
    """What Retry-After asks for, where it is a number."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0
