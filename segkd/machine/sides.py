"""Two sides of a step at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

One, Other = TypeVar("One"), TypeVar("Other")


def side_by_side(one: Callable[[], One], other: Callable[[], Other]) -> tuple[One, Other]:
    """What both calls return: the first in a thread of its own, each on half of torch's threads.

    Two halves of the cores are quicker than all of them in turn: small maps give many threads little to do. Both are waited
    for, whatever either raises.
    """
    threads = torch.get_num_threads()

    def on_half(call: Callable[[], One | Other]) -> One | Other:
        torch.set_num_threads(max(1, threads // 2))
        return call()

    try:
        with ThreadPoolExecutor(1) as beside:
            first = beside.submit(on_half, one)
            second = on_half(other)
        return first.result(), second
    finally:
        torch.set_num_threads(threads)
