"""MAD, momentum adversarial distillation (arXiv:2209.10359)."""

from __future__ import annotations

from torch import nn

from segkd.foundation.errors import UsageError
from segkd.methods.dfad import DFAD
from segkd.synthesis.generator import Generator, Live
from segkd.synthesis.mixed import Mixed


class MAD(DFAD):
    """DFAD whose student learns on images of the live generator and of its average, half each.

    Older samples come back, so that the student forgets less. Differs: the paper's sums, which are for
    classes of whole images, were not at hand; DFAD's are in their place.
    """

    student, source, pixels = ("kd",), ("adv",), ()
    weights = {"kd": 1.0, "adv": 1.0}

    def source_around(self, source: nn.Module) -> nn.Module:
        """The source, which draws by its generator's average, and half of each batch by the live one.

        Raises:
            UsageError: the generator has no average.
        """
        generators = [part for part in source.modules() if isinstance(part, Generator) and part.player is not None]
        if not generators:
            return source
        [generator] = generators
        if generator.player.average is None:
            raise UsageError("mad learns from the generator's average too, and there is none; set synth.ema=0.95")
        return Mixed(source, {"live": (Live(generator), 0.5)})
