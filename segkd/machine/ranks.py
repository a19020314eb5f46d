"""Which of several processes of one run this is. A run of one process has one rank, 0, and nobody to wait for.

All of them must come to each exchange below, in the same order: what leads there may depend on nothing that one process
knows alone.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segkd.foundation import terminal
from segkd.foundation.errors import StorageError, one_line

Value = TypeVar("Value")
PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others; one that dies is noticed at once."""


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Meet the other processes that torchrun has started, for the time of the block; nothing where there are none.

    Raises:
        StorageError: the others cannot be reached, or were lost inside the block.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or size() > 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # What the host itself says goes another way than tensors do: it would wait for all that the GPU was given before.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    number = f"process {rank()} of {size()}"
    try:
        yield
    except RuntimeError as error:  # what torch raises when a peer is gone has no kind of its own
        if any(word in str(error) for word in ("gloo", "NCCL", "peer", "Timed out")):
            raise StorageError(
                f"{number}: lost another process ({one_line(error)}); run the same command again"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one."""
    return dist.get_rank() if size() > 1 else 0


def say(*lines: object) -> None:
    """Lines for the user, once for all processes: also before these have met, when torchrun alone has numbered them."""
    if not rank() and terminal.speaks():
        terminal.say(*lines)


def local_batch(batch: int) -> int:
    """How many of a batch's images are this process's. Raises ValueError where they cannot be shared out equally."""
    if batch % size():
        raise ValueError(f"a batch of {batch} cannot be shared out to {size()} processes")
    return batch // size()


def shard(value: Tensor) -> Tensor:
    """This process's share of a tensor (N, ...) that all processes hold alike."""
    count = local_batch(len(value))
    return value[rank() * count : (rank() + 1) * count]


def stream(name: str) -> str:
    """The name of a stream of random numbers that is each process's own; the first has that of a run of one."""
    return f"{name}/{rank()}" if rank() else name


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in some process."""
    return flag if size() == 1 else bool(largest(int(flag)))


def largest(number: int) -> int:
    """The largest of the numbers of all processes."""
    if size() == 1:
        return number
    seen = torch.tensor(number)
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    return int(seen)


def anywhere(flag: Tensor) -> Tensor:
    """Whether a flag, () bool, is true in some process; on its device, without a look at it."""
    if size() == 1:
        return flag
    seen = flag.to(torch.uint8)
    dist.all_reduce(seen, dist.ReduceOp.MAX)
    return seen.bool()


def broadcast(value: Value) -> Value:
    """What the first process says, in all of them; any value that pickle knows."""
    if size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Value) -> list[Value]:
    """The values of all processes in the first of them, and in the others an empty list."""
    if size() == 1:
        return [value]
    boxes = [None] * size() if rank() == 0 else None
    dist.gather_object(value, boxes, dst=0)
    return boxes or []


def all_reduce(value: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if size() > 1:
        dist.all_reduce(value)
    return value


def all_gather(value: Tensor) -> Tensor:
    """The tensors of all processes, stacked along a new first dimension."""
    if size() == 1:
        return value.unsqueeze(0)
    found = [torch.empty_like(value) for _ in range(size())]
    dist.all_gather(found, value)
    return torch.stack(found)


def barrier() -> None:
    """Go on when all are here."""
    if size() > 1:
        dist.barrier()


def with_mean_buffers(network: nn.Module) -> nn.Module:
    """The network that all processes measure: a copy with the means of their buffers; itself in a run of one.

    Parameters are alike everywhere, running statistics are not: each process has seen other images.
    """
    if size() == 1:
        return network
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for buffer in twin.buffers():
            if buffer.is_floating_point():
                buffer.copy_(all_reduce(buffer.clone()) / size())
    return twin


def all_mean(values: list[Tensor | None]) -> list[Tensor | None]:
    """The means over all processes of tensors of one dtype and device, in one exchange; None stays None."""
    if size() == 1:
        return values
    present = [value for value in values if value is not None]
    flat = torch.cat([value.flatten() for value in present])
    dist.all_reduce(flat)
    parts = iter((flat / size()).split([value.numel() for value in present]))
    return [None if value is None else next(parts).view_as(value) for value in values]
