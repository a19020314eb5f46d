"""Files that would run code, or take memory and time without end: pickles and safetensors by hand."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ZEROS = 150_000_000


class Calls:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


class Built(Calls):
    """Pickles to a call whose result then gets a state."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (*self.call, {"x": 1})


def saved(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


GOOD = {"a": torch.ones(2, 3)}


def archive(pickled: bytes, storage: bytes = bytes(24), compression: int = zipfile.ZIP_STORED) -> bytes:
    """A file as torch writes it, with a pickle and a storage of our own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as archive:
        for name, data in (("data.pkl", pickled), ("byteorder", b"little"), ("data/0", storage), ("version", b"3\n")):
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def with_records(*records: tuple[str, bytes]) -> bytes:
    """A zip file of uncompressed records, names as they are given."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, data in records:
            archive.writestr(name, data)
    return buffer.getvalue()


def twins(*names: str) -> bytes:
    """A file with two pickles, of which one asks for a gigabyte by repeating one number."""
    rest = [("byteorder", b"little"), ("data/0", bytes(24)), ("version", b"3\n")]
    good, bad = value(tensor()), value(tensor((10**5, 10**5), (0, 0)))
    return with_records(*zip(names, (bad, good), strict=True), *((f"archive/{name}", data) for name, data in rest))


def shifted(before: bytes) -> bytes:
    """A file with another in front of it, whose places torch's reader and Python's count from different beginnings."""
    return before + archive(value(tensor()))


def two_ends() -> bytes:
    """A file whose last bytes lead Python to one list of records, and a reader that trusts the locator to another."""
    data = archive(value(tensor()))
    end = data.rindex(b"PK\x05\x06")
    size, start = struct.unpack_from("<LL", data, end + 12)
    here = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 4, 4, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 10, 1)
    return data[:end] + here + locator + data[end:]


def renamed_in_place() -> bytes:
    """A file whose record has another name before its bytes than in the list."""
    return archive(value(tensor())).replace(b"archive/data.pkl", b"archive/DATA.pkl", 1)


def value(instructions: bytes) -> bytes:
    """A pickle of {"a": what the instructions leave}."""
    return b"\x80\x02}X\x01\x00\x00\x00a" + instructions + b"s."


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def whole(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def text(characters: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(characters)) + characters


def tensor(
    size: tuple[int, ...] = (2, 3), stride: tuple[int, ...] = (3, 1), key: bytes = b"0", count: int = 6, offset: int = 0
) -> bytes:
    """Instructions for a tensor on a storage of `count` numbers."""
    sizes, strides = (b"(" + b"".join(map(whole, numbers)) + b"t" for numbers in (size, stride))
    storage = b"(" + text(b"storage") + named("torch.FloatStorage") + text(key) + text(b"cpu") + whole(count) + b"tQ"
    hooks = named("collections.OrderedDict") + b")R"
    return (
        named("torch._utils._rebuild_tensor_v2")
        + b"("
        + storage
        + whole(offset)
        + sizes
        + strides
        + b"\x89"
        + hooks
        + b"tR"
    )


def listing(storage: bytes, times: int) -> bytes:
    """A zip file whose directory lists one record many times."""
    data = archive(value(tensor()), storage)
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<L", data, end + 16)[0]
    record = b"archive/data/0"
    at = data.index(record, start) - 46
    directory = data[start:end] + data[at : at + 46 + len(record)] * times
    return data[:start] + directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, len(directory), start, 0)


def pickles(mark: Path) -> dict[str, bytes]:
    """Files for `torch.load`; code in them would leave a mark."""
    touch = f"touch {mark}"
    write = f"open({str(mark)!r}, 'w')"
    return {
        "os.system": saved({"a": Calls(os.system, touch)}),
        "os.system beside good tensors": saved({**GOOD, "state_dict": GOOD, "note": Calls(os.system, touch)}),
        "os.system, protocol 4": saved({"a": Calls(os.system, touch)}, pickle_protocol=4),
        "os.system, old format": saved({"a": Calls(os.system, touch)}, _use_new_zipfile_serialization=False),
        "os.system, plain pickle": pickle.dumps({"a": Calls(os.system, touch)}),
        "os.system, text pickle": pickle.dumps({"a": Calls(os.system, touch)}, protocol=0),
        "os.system in a key": saved({Calls(os.system, touch): 1}),
        "os.system, with a state": saved({"a": Built(os.system, touch)}),
        "eval": saved({"a": Calls(eval, write)}),
        "exec": saved({"a": Calls(exec, write)}),
        "subprocess": saved({"a": Calls(subprocess.Popen, ["touch", str(mark)])}),
        "Path.touch": saved({"a": Calls(Path.touch, mark)}),
        "torch.hub": saved({"a": Calls(torch.hub.load, "nobody/nothing", "x")}),
        "torch.load within": saved({"a": Calls(torch.load, str(mark))}),
        "a module": saved(torch.nn.Linear(2, 2)),
        "bytearray of 2 GB": archive(value(named("builtins.bytearray") + b"J" + struct.pack("<i", 2**31 - 1) + b"\x85R")),
        "bytearray, by its old name": archive(value(named("__builtin__.bytearray") + b"J" + struct.pack("<i", 2**31 - 1) + b"\x85R")),
        "tensor of nothing": archive(value(named("torch.Tensor") + whole(50_000) * 2 + b"\x86R")),
        "compressed storage": archive(value(tensor((ZEROS // 4,), (1,), count=ZEROS // 4)), bytes(ZEROS), zipfile.ZIP_DEFLATED),
        "compressed pickle": archive(value(text(bytes(ZEROS))), compression=zipfile.ZIP_DEFLATED),
        "one number for all": archive(value(tensor((10**5, 10**5), (0, 0)))),
        "more numbers than there are": archive(value(tensor((10**6, 10**6)))),
        "a storage that lies": archive(value(tensor(count=10**12))),
        "a storage of less than nothing": archive(value(tensor(count=-1))),
        "an offset beyond": archive(value(tensor(offset=10**9))),
        "a stride backwards": archive(value(tensor(stride=(-3, 1)))),
        "a size that overflows": archive(value(tensor((2**62, 4)))),
        "no such storage": archive(value(tensor(key=b"77"))),
        "a path for a storage": archive(value(tensor(key=b"../../../../../etc/passwd"))),
        "three million numbers": archive(value(b"(" + b"K\x01" * 3_000_000 + b"t")),
        "a hundred thousand lists": archive(value(b"]" * 100_000 + b"a" * 99_999)),
        "a long integer": archive(value(b"\x8b" + struct.pack("<i", 2**31 - 1))),
        "a long text": archive(value(b"X\xff\xff\xff\x7fa")),
        "no end": archive(value(tensor())[:-1]),
        "records that overlap": listing(bytes(1_000_000), 1_000),
        "many records": listing(b"", 300_000),
        "a pickle in large letters": twins("archive/DATA.PKL", "archive/data.pkl"),
        "a pickle in large letters after": twins("archive/data.pkl", "archive/Data.Pkl"),
        "two pickles": twins("archive/data.pkl", "archive/data.pkl"),
        "a pickle in another folder": twins("other/data.pkl", "archive/data.pkl"),
        "a pickle in a folder of large letters": twins("ARCHIVE/data.pkl", "archive/data.pkl"),
        "a pickle in no folder": twins("data.pkl", "archive/data.pkl"),
        "a pickle deeper": twins("archive/x/data.pkl", "other/data.pkl"),
        "a pickle and a folder": twins("archive/data.pkl/", "archive/data.pkl"),
        "a file before": shifted(archive(value(tensor((10**5, 10**5), (0, 0))))),
        "bytes before": shifted(b"PK\x03\x04" + bytes(60)),
        "bytes after": archive(value(tensor())) + bytes(30),
        "two ends": two_ends(),
        "another name within": renamed_in_place(),
        "another beginning": b"PK\x05\x06" + archive(value(tensor()))[4:],
        "a sparse tensor": saved({"a": torch.ones(3).to_sparse()}),
        "a tensor without numbers": saved({"a": torch.ones(3, device="meta")}),
        "an empty zip file": b"PK\x05\x06" + bytes(18),
        "the beginning of a zip file": saved(GOOD)[:100],
        "nothing": b"",
        "zeros": bytes(1000),
    }  # fmt: skip


def safe(header: object, numbers: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file."""
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(data) if length is None else length) + data + numbers


def at(shape: list, places: list[int], kind: str = "F32", **more: object) -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": places, **more}


def many(count: int, item: str) -> bytes:
    return b"{" + b",".join(f'"{i}":{item}'.encode() for i in range(count)) + b"}"


EMPTY = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'


def headers() -> dict[str, bytes]:
    """Files that end in .safetensors."""
    return {
        "a header of 2^63": safe(b"{}", length=2**63 - 1),
        "a header longer than the file": safe(b"{}", length=90_000),
        "a header longer than the file by far": safe(b"{}", length=99_000_000),
        "no header": safe(b"", length=0),
        "a header of spaces": safe(b"{" + b" " * 20_000_000 + b"}"),
        "two hundred thousand tensors": safe(many(200_000, EMPTY)),
        "many notes": safe(b'{"__metadata__":' + many(400_000, '"x"') + b"}"),
        "deep lists": safe(b'{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}"),
        "numbers missing": safe({"a": at([2], [0, 8])}, bytes(4)),
        "numbers left over": safe({"a": at([2], [0, 8])}, bytes(100)),
        "places before the first": safe({"a": at([2], [-8, 0])}, bytes(8)),
        "places backwards": safe({"a": at([2], [8, 0])}, bytes(8)),
        "places that overlap": safe({"a": at([2], [0, 8]), "b": at([2], [4, 12])}, bytes(12)),
        "a hole between": safe({"a": at([2], [0, 8]), "b": at([2], [12, 20])}, bytes(20)),
        "a shape that overflows": safe({"a": at([2**32, 2**32], [0, 8])}, bytes(8)),
        "a shape of 2^63": safe({"a": at([2**63], [0, 8])}, bytes(8)),
        "a shape of a fraction": safe({"a": at([2.5], [0, 8])}, bytes(8)),
        "a shape below nothing": safe({"a": at([-2], [0, 8])}, bytes(8)),
        "more than the places hold": safe({"a": at([2], [0, 8], "F64")}, bytes(8)),
        "an unknown type": safe({"a": at([2], [0, 8], "\x1b[31m\n" * 1000)}, bytes(8)),
        "no type": safe({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        "two of one name": safe(
            b'{"a":%s,"a":%s}' % tuple(json.dumps(at([1], p)).encode() for p in ([0, 4], [4, 8])), bytes(8)
        ),
        "no text": safe(b'{"\xff":' + EMPTY.encode() + b"}"),
        "a list": safe(b"[]"),
        "not a number": safe(b'{"a":NaN}'),
        "a note that is no text": safe({"__metadata__": {"a": 1}, "a": at([2], [0, 8])}, bytes(8)),
        "a pickle": pickle.dumps({"a": Calls(os.system, "exit 1")}),
        "a checkpoint": saved(GOOD),
        "nothing": b"",
    }
