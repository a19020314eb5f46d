"""One pass before the first step: what torch, or a network's own code, has against a network, told in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from segkd.foundation.errors import RecipeError, SegkdError, TeacherError, one_line
from segkd.machine.memory import out_of_memory
from segkd.models.adapters import Adapter
from segkd.models.taps import untouched_statistics

CONSTANT = 1e-4
"""Spread of a network's answers below which it says the same of all images."""
ONE_EACH = "teacher.classes must name one class for each map, in their order"


@contextmanager
def computed(what: str, advice: str, kind: type[SegkdError] = TeacherError) -> Iterator[None]:
    """Raises `kind` where the block fails, which runs code that is not ours: `what`, the reason, and `advice`.

    What segkd says itself passes, and so does a lack of memory.
    """
    try:
        yield
    except SegkdError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise kind(f"{what}: {one_line(error)}; {advice}") from error


def try_passes(
    network: Adapter, block: str, of: str, size: tuple[int, int], batch: int, device: torch.device, bf16: bool,
    follows: bool = True,
) -> None:  # fmt: skip
    """Show a network in its mode some random images (N,K,*size), N the batch but two at most, and go back to its input.

    Nothing of it changes, and no random number is drawn.

    Args:
        block: the block of the recipe that describes it; `of` is what that says.
        follows: somebody follows its gradient: a frozen network's to the images.

    Raises:
        RecipeError: it cannot compute them; at `run.batch` where two images would do.
        TeacherError: what it gives are no logits.
    """

    def passes(images: int) -> Tensor:
        x = torch.randn(images, network.channels, *size, device=device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            # as the network gives them: sums of probabilities that a teacher has merged look like logits
            logits = Adapter.forward(network, x.requires_grad_()).float()
        if not follows:
            return logits.detach()
        asked = [x, *(p for p in network.parameters() if p.requires_grad)]
        if not logits.requires_grad or torch.autograd.grad(logits.square().mean(), asked, allow_unused=True)[0] is None:
            cut = "no gradient comes back from its logits to its images"
            raise TeacherError(f"{block}: {of}: {cut}; leave detach(), no_grad() and NumPy out of its forward")
        return logits.detach()

    @torch.no_grad()
    def large(images: int) -> Tensor:
        shown = 100 * torch.randn(images, network.channels, *size, device=device)
        return Adapter.forward(network, shown).float()

    what = f"{block}: {of} cannot compute images of {size[0]}x{size[1]}{' in bf16' if bf16 else ''}"
    advice = "set the size (synth.size, train.crop) to one that it takes"
    if fixed := network.family.made_for(network.network):
        height, width = fixed
        key = "synth.size" if block != "model" else "train.crop"
        advice = f"it was made for {height}x{width}: set {key}=[{height}, {width}], or {block}.options={{img_size: [{size[0]}, {size[1]}]}}"
    elif block == "teacher":
        advice += (
            ", or say which it takes (teacher.multiple, teacher.size), and of how many channels (teacher.mean, std)"
        )
    kept = {} if network.training else {key: value.clone() for key, value in network.named_buffers()}
    try:
        logits = tried(passes, network, batch, what, advice, device)
    except RecipeError as error:
        if "positional argument" not in str(error.__cause__):
            raise
        how = "its forward has to take images (N,C,H,W) as its one argument"
        raise TeacherError(f"{block}: {of}: {one_line(error.__cause__)}; {how}") from error
    if any(not torch.equal(kept[key], value) for key, value in network.named_buffers() if key in kept):
        own = "changes its own numbers as it computes an image, as in training; export it, or write it, for evaluation"
        raise TeacherError(f"{block}: {of} {own}")
    if logits.shape[1] != network.classes:
        raise TeacherError(f"{block}: {of} gives {logits.shape[1]} maps for {network.classes} classes; {ONE_EACH}")
    if _bounded(logits) and _bounded(answers := tried(large, network, batch, what, advice, device)):
        softmax = torch.allclose(logits.sum(1), torch.ones(()), atol=1e-2)
        varied = (answers - answers[:1, :, :1, :1]).abs().max() > CONSTANT  # else they are the last layer's biases
        if softmax or varied:
            kind = "softmax" if softmax else "sigmoid"
            instead = ", or set teacher.output=probabilities" if block == "teacher" else ""
            raise TeacherError(f"{block}: {of} gives probabilities, and no logits: leave its {kind} out{instead}")


def _bounded(maps: Tensor) -> bool:
    return bool(maps.min() >= 0 and maps.max() <= 1)


def tried(
    passes: Callable[[int], Tensor], network: nn.Module, batch: int, what: str, advice: str, device: torch.device
) -> Tensor:
    """What `passes` gives for the batch, but two images at most; it computes `network`, of which nothing changes.

    Raises:
        RecipeError: it cannot be computed; at `run.batch` where two images would do.
    """
    devices = [device] if device.type == "cuda" else []
    kept = untouched_statistics(network) if network.training else nullcontext()  # a program's flags cannot be set
    with torch.random.fork_rng(devices), kept:
        try:
            with computed(what, advice, RecipeError):
                return passes(min(batch, 2))
        except RecipeError:
            if batch > 1:
                raise
            with computed(what, advice, RecipeError):
                passes(2)
            raise RecipeError(
                "run.batch: one image is too few for a BatchNorm layer of one pixel; set run.batch=2"
            ) from None


@torch.no_grad()
def try_measured(network: Adapter, who: str, size: tuple[int, int], device: torch.device) -> None:
    """Show a network one image (1,K,*size) of those that will measure it, in evaluation mode.

    Raises:
        TeacherError: it cannot compute it, which would be told after the last step.
    """
    what = f"data.name: the {who} cannot compute the images of {size[0]}x{size[1]} that measure it"
    training = network.training
    rule = "say which it takes (teacher.multiple, teacher.size), or " if who == "teacher" else ""
    with computed(what, f"{rule}set data.name=null, and measure with segkd eval --slide HxW"):
        network.eval()(torch.zeros(1, network.channels, *size, device=device))
    network.train(training)
