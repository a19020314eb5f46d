"""What a person sees: names made harmless, streams that are closed, full or gone, and a live line that fits its terminal."""

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from segkd.foundation import terminal
from segkd.foundation.errors import OutputClosed, StorageError
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
LINES = "from segkd.foundation import terminal\nterminal.open_closed()\n"
BROKEN = {
    "closed": "2>&- >&-",
    "full": ">/dev/full 2>&1",
    "error closed": "2>&- >/dev/null",
    "error full": "2>/dev/full",
}
"""Where words go, as a shell says it."""


def shell(code: str, where: str = "", **environment: str) -> subprocess.CompletedProcess:
    """A Python child under `sh`, whose streams go where the shell sends them."""
    command = ["sh", "-c", f'"$0" -c "$1" {where}', sys.executable, LINES + code]
    return subprocess.run(
        command, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, check=False
    )


@contextlib.contextmanager
def on_terminal(code: str, columns: int = 60, term: str = "xterm") -> Iterator[tuple[subprocess.Popen, int]]:
    """A Python child that has a terminal of its own, and the other end of that."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": term}
    command = [sys.executable, "-c", LINES + code]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        yield child, ours
    finally:
        child.stdin.close()
        assert child.wait(PATIENCE) == 0
        with contextlib.suppress(OSError):
            os.close(ours)


def all_of(ours: int) -> str:
    """What a child whose terminal this is wrote until it ended."""
    read = b""
    with contextlib.suppress(OSError):  # EIO: the child is gone
        while piece := os.read(ours, 65536):
            read += piece
    return read.decode()


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "FW" else 1 for letter in text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("photo 1.png", "photo 1.png"),
        ("Straße_写真\u3000２.png", "Straße_写真\u3000２.png"),
        ("a\nsegkd: done", "a\\nsegkd: done"),
        ("\x1b]0;title\x07.png", "\\x1b]0;title\\x07.png"),
        ("\x9b2Jx\x85", "\\x9b2Jx\\x85"),
        ("exe\u202egnp.jpg", "exe\\u202egnp.jpg"),
        ("\u2066a\u2069\u200f\u061c", "\\u2066a\\u2069\\u200f\\u061c"),
        ("a\u2028b\u2029c\r\tz\x00\x7f", "a\\u2028b\\u2029c\\r\\tz\\x00\\x7f"),
        ("caf\udce9.png", "caf\\udce9.png"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_names_are_shown_with_their_control_characters_visible(name, shown, capsys):
    assert terminal.visible(name) == shown
    for tell, stream in ((terminal.say, "err"), (terminal.tell, "out"), (terminal.deliver, "out")):
        tell(f"{name}: damaged")
        assert getattr(capsys.readouterr(), stream) == f"{shown}: damaged\n"


def test_nothing_is_printed_anywhere_else():
    elsewhere = re.compile(r"(?<![\w.])print\(|click\.echo|sys\.std(out|err)|logging\.|traceback\.print")
    found = {
        str(path.relative_to(ROOT)): hits
        for folder in ("segkd", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if (hits := [line for line in path.read_text("utf-8").splitlines() if elsewhere.search(line)])
    }
    # What mutates segkd must not have loaded it before its children do.
    assert list(found) == ["segkd/foundation/terminal.py", "tools/mutate.py"], found


@pytest.mark.parametrize("where", BROKEN.values(), ids=BROKEN)
def test_words_that_nobody_can_read_end_nothing(where, tmp_path):
    done = tmp_path / "done"
    code = f"""
for _ in range(3):
    terminal.say('word')
    terminal.tell('result')
    with terminal.Live('measuring', 'images') as live:
        live.update(1, 2)
open({str(done)!r}, 'w').write('whole')
terminal.settle()
"""
    assert shell(code, where).returncode == 0
    assert done.read_text() == "whole"


def test_a_closed_pipe_ends_no_words(tmp_path):
    code = "import sys\nsys.stdin.readline()\nfor _ in range(9): terminal.say('w' * 999); terminal.tell('r' * 9999)\nterminal.settle()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LINES + code], env=environment, **pipes) as child:
        child.stdout.close()
        child.stderr.close()
        child.stdin.close()
    assert child.returncode == 0


def test_what_is_written_by_c_goes_into_no_file(tmp_path):
    file = tmp_path / "checkpoint"
    code = f"import os\nwith open({str(file)!r}, 'wb') as f:\n f.write(b'bytes')\n f.flush()\n os.write(2, b'warning from C')"
    assert shell(code, "2>&- >&- <&-").returncode == 0
    assert file.read_bytes() == b"bytes"


@pytest.mark.parametrize(("where", "kind"), [(">/dev/full", "StorageError"), (">&-", "StorageError")])
def test_a_result_that_cannot_be_written_is_told(where, kind):
    done = shell("terminal.deliver('table')", where)
    assert done.returncode == 1
    assert f"{kind}: standard output: cannot write the result" in done.stderr.decode()


def test_a_result_whose_reader_went_away(monkeypatch):
    ours, theirs = os.pipe()
    os.close(ours)
    monkeypatch.setattr(sys, "stdout", os.fdopen(theirs, "w"))
    with pytest.raises(OutputClosed) as caught:
        terminal.deliver("table")
    assert caught.value.exit_code == 141
    terminal.settle()


def test_a_stream_that_was_closed_or_is_none(monkeypatch):
    for stream in (None, io.TextIOWrapper(io.BytesIO())):
        if stream is not None:
            stream.close()
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        terminal.say("word")
        terminal.tell("word")
        terminal.Live("x").begin().end()
        terminal.settle()
        with pytest.raises(StorageError, match="closed"):
            terminal.deliver("word")


@pytest.mark.parametrize("coding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_terminal_has_not_are_escaped(coding):
    code = "terminal.tell('写é\\udcff'); terminal.say('写é\\udcff')"
    done = shell(code, PYTHONIOENCODING=coding)
    expected = {"ascii": b"\\u5199\\xe9", "latin-1": b"\\u5199\xe9", "utf-8": "写é".encode()}[coding]
    assert done.returncode == 0
    assert done.stdout == done.stderr == expected + b"\\udcff\n"


LIVE = """
import sys, time
terminal.EVERY = 0
with terminal.Live('写真 of a very long name of a folder', 'images', stays=True) as live:
    for done in range(5):
        live.update(done, 4, 'kd 0.123  ' * 40)
    terminal.say('warning: a line of its own')
    terminal.tell('result')
"""


@pytest.mark.parametrize("columns", [20, 60, 80, 200])
def test_the_live_line_is_never_wider_than_the_terminal(columns):
    with on_terminal(LIVE, columns) as (_, ours):
        seen = all_of(ours)
    assert seen.endswith("\r\n") and "\x1b[A" not in seen
    whole = seen.split("\r\n")
    assert [line.rpartition("\r")[2].removeprefix("\x1b[K") for line in whole[:-2]] == [
        "warning: a line of its own",
        "result",
    ]
    drawn = [text.removesuffix("\x1b[K") for line in whole for text in line.split("\r") if text.endswith("\x1b[K")]
    assert len(drawn) >= 7
    assert max(width(text) for text in drawn) == columns - 1
    assert not re.search(r"\x1b|[^ -~·█▏▎▍▌▋▊▉写真]", "".join(drawn))


def test_the_live_line_follows_the_terminals_width():
    code = """
import sys
terminal.EVERY = 0
live = terminal.Live('measuring', 'images').begin()
for _ in range(3):
    live.update(1, 2, 'n' * 300)
    sys.stdin.readline()
live.end()
"""
    with on_terminal(code, 100) as (child, ours):
        found = []
        for columns in (100, 40, 70):
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            if found:
                child.stdin.write(b"\n")
                child.stdin.flush()
            seen = b""
            while not re.search(rb"1/2.*\x1b\[K$", seen):
                assert select.select([ours], [], [], 60)[0], seen
                seen += os.read(ours, 65536)
            found.append(width(seen.decode().split("\r")[-1].removesuffix("\x1b[K")))
        child.stdin.write(b"\n")
        child.stdin.flush()
        all_of(ours)
    assert found[1:] == [39, 69]


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_gets_lines_and_no_control_codes(term):
    with on_terminal(LIVE, term=term) as (_, ours):
        assert all_of(ours) == "warning: a line of its own\r\nresult\r\n"


def test_elsewhere_nothing_is_written_over():
    done = shell(LIVE, TERM="xterm")
    assert (done.stdout, done.stderr) == (b"result\n", b"warning: a line of its own\n")


def test_a_terminal_that_goes_away_ends_nothing(tmp_path):
    done = tmp_path / "done"
    code = f"""
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
terminal.EVERY = 0
live = terminal.Live('measuring', 'images').begin()
sys.stdin.readline()
for step in range(9):
    live.update(step, 9)
    terminal.say('warning')
    terminal.tell('result')
live.end()
open({str(done)!r}, 'w').write('whole')
terminal.settle()
"""
    with on_terminal(code) as (child, ours):
        os.read(ours, 10)
        os.close(ours)
        child.stdin.write(b"\n")
    assert done.read_text() == "whole"


def test_the_last_state_stays_or_goes():
    code = "terminal.Live('gone', stays={}).begin().end()\nterminal.say('error')"
    for stays, expected in ((False, "\r\x1b[Kerror\r\n"), (True, "\r\nerror\r\n")):
        with on_terminal(code.format(stays)) as (_, ours):
            seen = all_of(ours)
        assert seen == f"\rgone\x1b[K{'' if not stays else chr(13) + 'gone' + chr(27) + '[K'}{expected}"


def test_text_of_what_is_done(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    live = terminal.Live("step", "steps", done=10)
    assert live.text(60) == "step"
    live.doing("preparing")
    assert live.text(60) == "preparing"
    live.doing("step")
    now[0] = 20.0
    live.update(12.5, 60, "kd 0.5")
    assert re.fullmatch(r"step:  21%\|.+\| 12.5/60 \[00:10<03:10,  4.00s/ ?steps, kd 0.5\]", live.text(80)), live.text(
        80
    )
    live = terminal.Live("down.zip", "B")
    live.update(2_000_000, 8_000_000)
    assert "2.00M/8.00M" in live.text(80)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.04, "3.0 s"), (59.6, "1 min"), (276.2, "4 min 36 s"), (3600, "1 h"), (7384, "2 h 3 min"), (0, "0.0 s")],
)
def test_times_as_people_say_them(seconds, words):
    assert terminal.spoken(seconds) == words


def test_a_notebook_shows_the_live_line_without_escape_codes(monkeypatch):
    """As ipykernel's stream, which is no terminal: carriage returns write over what is there, and nothing clears it."""
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.setattr(terminal, "EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", stream)
    assert terminal.interactive(stream) and not terminal.interactive(io.StringIO())
    with terminal.Live("step", "steps", stays=True) as live:
        for done, note in ((1, "a long note"), (2, "kd")):
            live.update(done, 2, note)
        terminal.say("a line between")
    shown, line = [], ""
    for piece in re.split(r"(\r|\n)", stream.getvalue()):
        if piece == "\n":
            shown, line = [*shown, line.rstrip()], ""
        elif piece != "\r":
            line = piece + line[len(piece) :]
    assert "\x1b" not in stream.getvalue() and shown[0] == "a line between"
    assert shown[1].startswith("step: 100%") and shown[1].endswith("kd]") and len(shown) == 2


def test_columns_in_which_nothing_stands_are_left_out() -> None:
    rows = [("", "MB", "mIoU"), ("a file", "", "")]
    assert terminal.without_empty_columns(rows) == [("",), ("a file",)]
    assert terminal.without_empty_columns([*rows, ("another", "", "0.5")])[0] == ("", "mIoU")
