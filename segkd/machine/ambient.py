"""What a process has set in torch: a run neither follows it in silence, nor leaves it changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def kept_apart() -> Iterator[None]:
    """What the block changes is put back: the state of torch's random numbers, the default dtype, threads.

    One thread at a time may be in such a block while another one draws random numbers.
    """
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


@contextmanager
def as_new() -> Iterator[None]:
    """Inside the block modes are those of a new process, whichever block the caller is in.

    They are: gradients kept, no autocast, tensors in fp32 and on the CPU unless it is said otherwise.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":  # only then: such a block makes each call slower
            modes.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            modes.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
