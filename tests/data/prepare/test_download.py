"""Tests of segkd.data.prepare.download against a real server that misbehaves."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segkd.data.prepare.download import Retries, download, is_url
from segkd.foundation.errors import StorageError, UsageError
from tests.waiting import PATIENCE

QUICK = Retries(tries=3, pause=0.001, timeout=PATIENCE, least=1)


@pytest.fixture
def target(tmp_path: Path, server: Any, content: bytes) -> Path:
    server.files["a.zip"] = content
    return tmp_path / "downloads" / "a.zip"


def fetch(server: Any, target: Path, **options: Any) -> None:
    download(server.url("a.zip"), target, retries=QUICK, **options)


def fails(server: Any, target: Path, words: str, **options: Any) -> None:
    with pytest.raises(StorageError, match=words) as caught:
        fetch(server, target, **options)
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value) and not target.exists()


def whole(target: Path, content: bytes) -> None:
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def ranges(server: Any) -> list[str | None]:
    return [asked for _, asked in server.asked]


def test_a_file(server: Any, target: Path, content: bytes):
    seen: list[tuple[int, int | None]] = []
    fetch(server, target, size=len(content), progress=lambda done, total: seen.append((done, total)))
    whole(target, content)
    assert seen[0] == (0, len(content)) and seen[-1] == (len(content), len(content)) and seen == sorted(seen)
    fetch(server, target)
    assert len(server.asked) == 1


def test_an_interrupted_file_goes_on_where_it_ended(server: Any, target: Path, content: bytes):
    server.habits = ["cut 300000", "503", "cut 200000", "429"]
    fetch(server, target)
    whole(target, content)
    assert ranges(server) == [None, "bytes=300000-", "bytes=300000-", "bytes=500000-", "bytes=500000-"]


def test_it_goes_on_in_another_process(server: Any, target: Path, content: bytes):
    server.habits = ["cut 300000", *["cut 0"] * 3]
    fails(server, target, r"after 300000 of 1000000 bytes; tried 3 times, the same command goes on from byte 300000 in .*a\.zip\.part")  # fmt: skip
    assert target.with_name("a.zip.part").read_bytes() == content[:300000]
    server.asked.clear()
    fetch(server, target)
    whole(target, content)
    assert ranges(server) == ["bytes=300000-"]


def test_a_server_that_knows_no_range_sends_all_of_it_again(server: Any, target: Path, content: bytes):
    server.habits = ["cut 300000", "whole cut 200000", "whole"]
    fetch(server, target)
    whole(target, content)
    assert ranges(server) == [None, "bytes=300000-", "bytes=200000-"]


@pytest.mark.parametrize("habits", [["changed"], ["stale"], ["shifted"], ["stale", "shifted"]])
def test_two_versions_are_never_mixed(server: Any, target: Path, content: bytes, habits: list[str]):
    server.habits = ["cut 300000", *habits]
    fetch(server, target)
    whole(target, server.files["a.zip"])
    assert (target.read_bytes() == content) == (habits == ["shifted"])
    assert len(server.asked) == (2 if habits == ["changed"] else 3)  # If-Range saves a request


@pytest.mark.parametrize("kind", ["weak", "none"])
def test_without_a_strong_validator_it_begins_again(server: Any, target: Path, content: bytes, kind: str):
    server.etags, server.weak = kind == "weak", True
    server.habits = ["cut 300000"]
    fetch(server, target)
    whole(target, content)
    assert ranges(server) == [None, None]


def test_a_file_of_unknown_length(server: Any, target: Path, content: bytes):
    server.habits = ["chunked cut 300000", "chunked cut 1000", "chunked"]
    fetch(server, target)
    whole(target, content)
    assert ranges(server) == [None, "bytes=300000-", "bytes=301000-"]


def test_a_part_that_is_longer_than_the_file_begins_again(server: Any, target: Path, content: bytes):
    server.habits = ["chunked cut 300000", "404"]
    fails(server, target, "404")
    with target.with_name("a.zip.part").open("ab") as part:
        part.write(bytes(len(content)))
    fetch(server, target)
    whole(target, content)


def test_a_part_without_its_version_or_of_another_address_is_worth_nothing(server: Any, target: Path, content: bytes):
    about = target.with_name("a.zip.part.json")
    for spoil in (about.unlink, lambda: about.write_text("{"), lambda: about.write_text("[]"), None):
        server.habits = ["cut 300000", "404"]
        fails(server, target, "404")
        server.asked.clear()
        if spoil is None:
            server.files["b.zip"] = content
            download(server.url("b.zip"), target, retries=QUICK)
        else:
            spoil()
            fetch(server, target)
        whole(target, content)
        assert ranges(server) == [None]
        target.unlink()


def test_a_part_that_is_all_there_is_only_renamed(server: Any, target: Path, content: bytes):
    server.habits = ["cut 300000", "404"]
    fails(server, target, "404")
    target.with_name("a.zip.part").write_bytes(content)
    server.asked.clear()
    fetch(server, target)
    whole(target, content)
    assert not server.asked


@pytest.mark.parametrize("status", ["404", "403", "410", "204"])
def test_a_refusal_is_final(server: Any, target: Path, status: str):
    server.habits = [status]
    fails(server, target, rf"a\.zip: the server says {status}")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", ["503", "500", "429", "408"])
def test_what_may_pass_is_tried_again(server: Any, target: Path, content: bytes, status: str):
    server.habits = [status, status]
    fetch(server, target)
    whole(target, content)
    server.habits = [status] * 9
    target.unlink()
    fails(server, target, rf"the server says {status} .*; tried 3 times, the same command begins again")
    assert len(server.asked) == 3 + 3


def test_tries_are_counted_from_the_last_new_byte(server: Any, target: Path, content: bytes):
    server.habits = ["503", "503", "cut 10", "503", "503", "cut 10", "503", "503"]
    fetch(server, target)
    whole(target, content)


def test_the_same_first_bytes_again_are_no_progress(server: Any, target: Path):
    server.etags = False
    server.habits = ["cut 500"] * 20
    fails(server, target, "after 500 of 1000000 bytes; tried 3 times")
    assert len(server.asked) == 3


def test_waits_grow(server: Any, target: Path, monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    server.habits = ["503"] * 9
    with pytest.raises(StorageError):
        download(server.url("a.zip"), target, retries=Retries(tries=8, pause=1.0))
    assert slept == [1, 2, 4, 8, 16, 32, 60]


@pytest.mark.parametrize("what", ["drip", "drip headers", "drip chunks"])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(server: Any, target: Path, content: bytes, what: str):
    """Bytes arrive before each timeout, so that only what arrives in a window can tell."""
    server.habits = [what] * 3
    slow = Retries(tries=3, pause=0.001, timeout=PATIENCE, least=50_000, window=0.05)
    with pytest.raises(
        StorageError, match=r"a\.zip: [0-9]+ bytes in 0\.05 seconds are too few; tried 3 times"
    ) as caught:
        download(server.url("a.zip"), target, retries=slow)
    assert caught.value.exit_code == 5 and len(server.asked) == 3
    fetch(server, target)
    whole(target, content)


def test_a_few_new_bytes_each_time_are_no_progress(server: Any, target: Path):
    server.habits = ["cut 1000"] + ["cut 10"] * 20
    with pytest.raises(StorageError, match="tried 3 times"):
        download(server.url("a.zip"), target, retries=Retries(tries=3, pause=0.001, timeout=PATIENCE, least=500))
    assert len(server.asked) == 1 + 3


def test_nobody_answers(server: Any, target: Path):
    server.habits = ["silent"] * 3
    with pytest.raises(StorageError, match=r"a\.zip: timed out; tried 2 times"):
        download(server.url("a.zip"), target, retries=Retries(tries=2, pause=0.001, timeout=0.1))
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(StorageError, match="Connection refused; tried 2 times"):
        download(f"http://127.0.0.1:{port}/a.zip", target, retries=Retries(tries=2, pause=0.001, timeout=PATIENCE))


def test_another_size_than_the_published_one(server: Any, target: Path, content: bytes):
    fails(server, target, "the server has 1000000 bytes, the published file 5; it has changed", size=5)
    server.habits = ["chunked"] * 9
    fails(server, target, "more than the 5 bytes of the published file", size=5)
    server.habits = ["chunked"] * 9
    fails(server, target, "tried 3 times", size=len(content) + 1)


def test_a_full_disk_keeps_the_part(
    server: Any, target: Path, content: bytes, small_files: Callable[[int], AbstractContextManager[None]]
):
    with small_files(300_000):
        fails(server, target, r"a\.zip\.part: cannot write: File too large \(1000000 bytes needed, [0-9]+ bytes free\)")
    assert target.with_name("a.zip.part").read_bytes() == content[:300_000]
    server.asked.clear()
    fetch(server, target)
    whole(target, content)
    assert ranges(server) == ["bytes=300000-"]


def test_no_room_is_said_before_the_first_byte(server: Any, target: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 1, 999_999))
    fails(server, target, r"no room \(1000000 bytes needed, 999999 free\)")
    assert target.with_name("a.zip.part").stat().st_size == 0


def test_what_stands_in_the_way(server: Any, tmp_path: Path):
    server.files["a.zip"] = b"x"
    (tmp_path / "file").write_text("")
    fails(server, tmp_path / "file" / "a.zip", "cannot write: File exists")


def test_addresses():
    assert is_url("http://x/y") and is_url("HTTPS://x/y") and not is_url("a/b.zip") and not is_url("C:/x")
    for wrong in ("ftp://x/y", "file:///etc/passwd"):
        with pytest.raises(UsageError, match="only http and https"):
            is_url(wrong)
    with pytest.raises(StorageError, match="not an address"):
        download("http://x y/", Path("unused"), retries=QUICK)


HABIT = st.one_of(
    st.sampled_from(["503", "whole", "changed", "stale", "shifted", "chunked", ""]),
    st.builds("{} {}".format, st.sampled_from(["cut", "whole cut", "chunked cut"]), st.integers(0, 5000)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HABIT, max_size=12), st.binary(max_size=4000), st.booleans())
def test_whatever_the_server_does_the_file_is_one_of_its_versions(
    server: Any, tmp_path_factory: pytest.TempPathFactory, habits: list[str], content: bytes, etags: bool
):
    versions = {content, bytes(255 - value for value in content)}
    server.files, server.habits, server.etags = {"a.zip": content}, habits, etags
    target = tmp_path_factory.mktemp("any") / "a.zip"
    for _ in range(30):
        try:
            fetch(server, target)
            break
        except StorageError:
            assert not target.exists()
    assert target.read_bytes() in versions
    assert json.loads("[]") == [path for path in target.parent.iterdir() if path != target]
