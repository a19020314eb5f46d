"""Files of tensors from anybody: what a file would have torch build is counted before it is built.

`torch.load(weights_only=True)` runs no code, but a file of a kilobyte may ask it for any number of gigabytes (by a
`bytearray`, or by compressed records), and safetensors makes a million empty tensors of sixty megabytes in silence.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from segkd.foundation.errors import one_line
from segkd.machine.memory import available_mb, out_of_memory

MOST_PICKLE = 8_000_000
"""Bytes of the pickle in a checkpoint, without the tensors' own: enough for twenty thousand of them."""
MOST_STEPS = 400_000
"""Instructions of that pickle; a tensor takes thirty."""
MOST_DIRECTORY = 8_000_000
"""Bytes of the list of records in a checkpoint."""
MOST_HEADER = 1_000_000
"""Bytes of the header of a safetensors file: enough for nine thousand tensors."""

_KNOWN = frozenset({
    "collections OrderedDict", "collections Counter", "builtins set", "__builtin__ set", "_codecs encode", "torch Size",
    "torch device", "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter",
})  # fmt: skip
_LEFT_OUT = frozenset({
    "argparse Namespace", "pathlib Path", "pathlib PosixPath", "pathlib PurePosixPath", "pathlib._local PosixPath",
    "pathlib._local Path", "numpy dtype", "numpy ndarray", "numpy.core.multiarray scalar", "numpy._core.multiarray scalar",
    "numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct", "torch.torch_version TorchVersion",
})  # fmt: skip
"""Kinds of values that training scripts write beside weights, a run's arguments and scores: none is made, or imported."""
_MAPPINGS = frozenset({
    "easydict EasyDict", "yacs.config CfgNode", "fvcore.common.config CfgNode", "addict.addict Dict",
    "lightning.fabric.utilities.data AttributeDict", "lightning_fabric.utilities.data AttributeDict",
    "pytorch_lightning.utilities.parsing AttributeDict",
})  # fmt: skip
"""Such kinds that are dicts, and read as plain ones."""
_DEFAULTDICT = "collections defaultdict"
_EMPTY = frozenset(
    f"{room} {kind}" for room in ("builtins", "__builtin__") for kind in ("dict", "list", "int", "float", "str")
)
"""What a defaultdict makes where it has no value; none is made here."""
_LEGACY_PICKLES = 5  # of torch before 1.6: a number, a version, the system, the object, the names of its storages


class TorchScript(ValueError):
    """The file holds a program, and its weights within."""


class Damaged(ValueError):
    """The file is no checkpoint, or not a whole one: pickle does not help."""


class LeftOut:
    """Stands for a value of a file that is not read; it keeps nothing of what it is given."""

    def __init__(self, *given: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def _mapping(*given: object) -> OrderedDict:
    """Stands for a defaultdict, and is filled as one."""
    return OrderedDict()


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: not such a file, or a header larger than any network's; in one line.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _check_size(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"a header of {length} bytes; at most {MOST_HEADER} are read")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def load_pickled(source: Path | bytes) -> Any:
    """What `torch.save` wrote: tensors, and plain values that hold them; the arguments and scores of a run as `LeftOut`.

    Raises:
        Damaged: it is no such file, or a part of one; in one line.
        ValueError: it holds anything else, or asks for more than it brings; in one line.
        OSError: it cannot be read.
    """
    if isinstance(source, Path):
        _check_size(source)
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        _check_steps(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old ways to write what is read here all the same
            given = io.BytesIO(source) if isinstance(source, bytes) else source
            kinds = {LeftOut: _LEFT_OUT | _EMPTY, OrderedDict: _MAPPINGS, _mapping: {_DEFAULTDICT}}
            known = [(kind, name.replace(" ", ".")) for kind, names in kinds.items() for name in names]
            with torch.serialization.safe_globals(known):
                loaded = torch.load(given, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        if out_of_memory(error):
            raise
        kind = Damaged if isinstance(error, EOFError) else ValueError
        raise kind(f"{type(error).__name__}: {one_line(error)}") from error
    for tensor in _tensors_in(loaded):
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"a tensor of {'x'.join(map(str, tensor.shape))} that repeats fewer numbers than it has")
    return loaded


def _check_size(path: Path) -> None:
    """Raise ValueError where a file holds more than memory does: a hole of a hundred gigabytes takes no disk."""
    size, left = path.stat().st_size / 2**20, available_mb()
    if left is not None and size > left:
        raise ValueError(f"{size:,.0f} MB, and {left:,.0f} MB of memory are left")


def _check_steps(file: BinaryIO) -> None:
    """Raise ValueError unless the pickles of a checkpoint name only what tensors are built of, in a bearable number of steps."""
    for pickle in _pickles(file):
        for number, (name, argument) in enumerate(_steps(pickle)):
            if number > MOST_STEPS:
                raise ValueError(f"its pickle has more than {MOST_STEPS} steps")
            if name == "GLOBAL" and not _is_known(argument):
                raise ValueError(f"it asks for {argument.replace(' ', '.')}")


def _steps(pickle: BinaryIO) -> Iterator[tuple[str, Any]]:
    """The instructions of a pickle, by name, with their arguments. Raises Damaged where something else stands there."""
    try:
        for step, argument, _ in pickletools.genops(pickle):
            yield step.name, argument
    except (ValueError, OverflowError) as error:
        raise Damaged(f"its pickle is damaged: {one_line(error, 60)}") from error


def _is_known(name: str) -> bool:
    module, _, attribute = name.rpartition(" ")
    is_type = module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    left_out = name in _LEFT_OUT | _MAPPINGS | _EMPTY | {_DEFAULTDICT}
    return name in _KNOWN or left_out or is_type or (module == "torch" and attribute.endswith("Storage"))


def _pickles(file: BinaryIO) -> Iterator[BinaryIO]:
    """The pickles of a checkpoint; each must be read to its end before the next."""
    if file.read(4) == b"PK\x03\x04":  # by these four torch tells a zip file, too
        yield io.BytesIO(_record(file))
        return
    file.seek(0)
    beginning = io.BytesIO(file.read(MOST_PICKLE))
    for _ in range(_LEGACY_PICKLES):
        if beginning.tell() < len(beginning.getbuffer()):
            yield beginning


def _record(file: BinaryIO) -> bytes:
    """The pickle of a checkpoint as torch has written them since 1.6: a zip file of uncompressed records.

    It is the one that torch reads: where its reader and Python's could see different records, the file is refused.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - (1 << 17)))
    if _directory(file.read(), size) > MOST_DIRECTORY:
        raise ValueError("its list of records is larger than any network's")
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if any(record.orig_filename.partition("/")[2] == "constants.pkl" for record in records):
                raise TorchScript("a TorchScript archive")
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise ValueError("compressed records, which torch does not write")
            if any(record.is_dir() for record in records):
                raise ValueError("a folder among its records")
            if sum(record.file_size for record in records) > size:
                raise ValueError("records that overlap")
            # Torch's reader knows no small and large letters, and looks in the folder of the first record.
            names = [record.orig_filename.encode("utf-8", "surrogateescape").lower() for record in records]
            if len(set(names)) < len(names):
                raise ValueError("two records of one name")
            if len({name.partition(b"/")[0] for name in names}) > 1:
                raise ValueError("records in more than one folder")
            found = [record for record in records if record.orig_filename.partition("/")[2] == "data.pkl"]
            if len(found) != 1 or found[0].file_size > MOST_PICKLE:
                raise ValueError("no pickle of tensors, or a larger one than any network's")
            pickle = archive.read(found[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, struct.error) as error:
        raise Damaged(one_line(error)) from error
    file.seek(0)
    try:
        if torch._C.PyTorchFileReader(file).get_record("data.pkl") != pickle:
            raise ValueError("another pickle than the one that its list of records names")
    except RuntimeError as error:
        raise Damaged(one_line(error)) from error
    return pickle


def _directory(tail: bytes, size: int) -> int:
    """The length of the directory of a zip file of `size` bytes, as its last bytes declare it.

    Raises:
        ValueError: it does not end where the file does, as all do that torch writes: readers would differ about it.
    """
    end = len(tail) - 22
    if end < 0 or tail[end : end + 4] != b"PK\x05\x06":
        raise Damaged("no end of a list of records at its end")
    length, offset = struct.unpack_from("<LL", tail, end + 12)
    if tail[max(end - 20, 0) : end][:4] == b"PK\x06\x07":
        place = struct.unpack_from("<Q", tail, end - 20 + 8)[0]
        end -= 76
        if end < 0 or place != size - len(tail) + end or tail[end : end + 4] != b"PK\x06\x06":
            raise Damaged("two ends of a list of records")
        length, offset = struct.unpack_from("<QQ", tail, end + 40)
    if offset + length != size - len(tail) + end:
        raise Damaged("its list of records is not where it should be")
    return length


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of a nested value; what stands in it twice is looked at once, however deep."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield item
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple | set):
            waiting += item


def to_safetensors(tensors: dict[str, Tensor], **metadata: str) -> bytes:
    """A safetensors file, the same bytes each time: safetensors itself writes metadata in an order drawn by chance."""
    data = save({name: value.contiguous() for name, value in tensors.items()}, metadata)
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + text.ljust(size) + data[8 + size :]
