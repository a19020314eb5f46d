"""A network that somebody brings himself: a function in a file of his own, or in Python a module or what builds one."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from segkd.foundation import terminal
from segkd.foundation.errors import SegkdError, TeacherError, one_line
from segkd.machine.ambient import kept_apart
from segkd.machine.memory import out_of_memory
from segkd.machine.own_code import CodeFile
from segkd.models.weights import load_weights

FUNCTION = "build"
"""Of a file, where none is named."""


@dataclass(frozen=True)
class TeacherFile(CodeFile):
    """A user's own teacher (`--teacher-file`)."""

    what, error = "teacher", TeacherError

    def line(self, error: BaseException) -> int | None:
        """The last line of the file that an error came through, or what caused it."""
        own = super().line(error)
        return own if own is not None or error.__cause__ is None else self.line(error.__cause__)


@dataclass(frozen=True)
class OwnNetwork:
    """A network of one's own.

    Attributes:
        name: what it is called in lines about it, as `my.py:build`.
        make: gives it, anew each time.
        file: that with its code, where there is one.
    """

    name: str
    make: Callable[[], object]
    file: TeacherFile | None = None

    @classmethod
    def in_file(cls, named: str) -> OwnNetwork:
        """What `FILE.py:FUNCTION` names; FUNCTION may also be a class, and is `build` where it is left out.

        Raises:
            TeacherError: the file cannot be read.
        """
        place, _, function = named.rpartition(":") if not named.endswith(".py") else (named, "", FUNCTION)
        file = TeacherFile.read(Path(place or named))

        def make() -> object:
            with _found_beside(file.path):
                module = file.run()
                made = getattr(module, function, None)
                if not callable(made):
                    own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == file.module]
                    has = f"; it has {', '.join(own)}" if own else ""
                    raise TeacherError(f"{file.path}: holds no function {function}{has}")
                return made()

        return cls(named, make, file)

    @classmethod
    def given(cls, value: nn.Module | Callable[[], object]) -> OwnNetwork:
        """A module, which stays as it is, or a function that builds one."""
        make = (lambda: copy.deepcopy(value)) if isinstance(value, nn.Module) else value
        return cls(f"the teacher given ({getattr(value, '__name__', type(value).__name__)})", make)

    def blamed(self) -> contextlib.AbstractContextManager[None]:
        """See `CodeFile.blamed`; nothing where there is no file."""
        return contextlib.nullcontext() if self.file is None else self.file.blamed()

    def built(self) -> nn.Module:
        """The network, in fp32, and as it is by itself where it was compiled.

        What its code prints is told beside the result, and what it changes in torch (the state of its random numbers, the
        default dtype, whether gradients are kept, threads) is put back; random numbers that it draws are always the same.

        Raises:
            TeacherError: its code fails, gives no network, or one without numbers, or with some that are not finite.
        """
        printed = io.StringIO()
        try:
            with kept_apart(), self.blamed(), contextlib.redirect_stdout(printed):
                torch.manual_seed(0)
                made = self.make()
        except (Exception, SystemExit) as error:
            if isinstance(error, SegkdError) or out_of_memory(error):
                raise
            raise TeacherError(f"{self.name}: {type(error).__name__}: {one_line(error)}") from error
        finally:
            terminal.say(*(f"{self.name}: {line}" for line in printed.getvalue().splitlines()))
        network = getattr(made, "_orig_mod", made)  # compiled: no hook would hear its layers
        if not isinstance(network, nn.Module):
            gave = "None" if made is None else f"an object of type {type(made).__name__}"
            raise TeacherError(f"{self.name}: gives {gave}, and no torch.nn.Module; return the network")
        for key, value in (*network.named_parameters(), *network.named_buffers()):
            if is_lazy(value):
                raise TeacherError(
                    f"{self.name}: {key} has no shape yet: show the network an image before it is returned"
                )
            if value.is_meta:
                raise TeacherError(f"{self.name}: {key} is on the device meta, without numbers: build it on the CPU")
        other = next((key for key, value in network.state_dict().items() if not isinstance(value, Tensor)), None)
        if other is not None:
            raise TeacherError(f"{self.name}: its state_dict holds {other}, which is no tensor: leave it out")
        load_weights(network.float(), network.state_dict(), self.name)  # for what it says of their numbers
        return network


def digest(network: nn.Module) -> str:
    """The SHA-256 of a network's parameters and buffers, with their names."""
    found = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        found.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


@contextlib.contextmanager
def _found_beside(path: Path) -> Iterator[None]:
    """What lies beside the file can be imported, as when Python runs it."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
