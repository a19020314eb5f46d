"""Counter-based seeds: the randomness of a move is a function of where it stands, so there is no state to save.

Torch has one generator for all threads of a process: one run at a time may draw from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator

from segkd.foundation.errors import UsageError


def seed_for(seed: int, step: int, move: int, stream: str) -> int:
    """The seed of one stream of random numbers in one move of one step.

    Args:
        seed: the run's seed (any integer).
        step: the step, counted from 0.
        move: the place of the move within the step.
        stream: what the numbers are for (`"latent"`, `"student"`, ...).

    Returns:
        An integer in [0, 2**63). It is a hash, so the low 32 bits (all that CPU generators use) differ as well
        between neighbouring steps as the whole does.
    """
    # The text is unambiguous: the three integers hold no separator, and the stream comes last.
    text = f"{int(seed)}/{int(step)}/{int(move)}/{stream}"
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"segkd-seed").digest()
    return int.from_bytes(digest, "little") >> 1


def seed_of_attempt(seed: int, attempt: int) -> int:
    """The run's seed; each new attempt after a rollback has its own random numbers."""
    return seed_for(seed, attempt, 0, "attempt") if attempt else seed


_running = threading.Lock()
_runner: int | None = None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keeps torch's global generator, of which a process has one, for the run inside the `with` block.

    Raises:
        UsageError: another run of this process has it.
    """
    global _runner
    if not _running.acquire(blocking=False):
        raise UsageError(
            "another run goes on in this process, and both would draw from torch's one generator; wait for it, or start a"
            " process for each"
        )
    _runner = threading.get_ident()
    try:
        yield
    finally:
        _runner = None
        _running.release()


def check_idle() -> None:
    """Raises UsageError where another thread's run has torch's generator, from which a new network's weights are drawn."""
    if _runner not in (None, threading.get_ident()):
        raise UsageError(
            "another run goes on in this process, and building a network would draw from its random numbers; load it before"
            " the run, after it, or in a process apart"
        )
