"""Counter-based seeds: the randomness of a move is a function of where it stands, so there is no state to save."""

from __future__ import annotations

import hashlib


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
