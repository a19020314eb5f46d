"""One door to every segmentation network: any image size in, logits out, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from segkd.foundation.channels import RGB
from segkd.foundation.errors import SegkdError, TeacherError, one_line
from segkd.machine.layers import quicken
from segkd.machine.memory import out_of_memory
from segkd.models.family import Size, Sizes, family_of
from segkd.models.taps import FeatureTap, last_maps

_SMALL = (128, 192)  # pixels of an image that shows where a network's maps are: four rows of them at stride 32

_LEAST = 1e-7  # of a probability: in fp32 the other one is 1 already


def as_logits(output: object) -> Tensor:
    """The (N,C,H,W) logits inside a network's output: a tensor, a dict with `out`/`logits`, or a sequence's first."""
    if isinstance(output, Mapping):
        for key in ("out", "logits"):
            if key in output:
                return as_logits(output[key])
    if isinstance(output, (tuple, list)) and output:
        return as_logits(output[0])
    if isinstance(output, Tensor) and output.dim() == 4:
        return output
    kind = f"one of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
    raise TeacherError(f"the network's output is no (N,C,H,W) tensor but {kind}: adapt it to return logits")


class Adapter(nn.Module):
    """A network that accepts any H and W: images are fitted to the sizes that it takes, and logits brought back.

    Logits come at the image's size, or (`at_head`) at the resolution of the network's own head, before its last
    upsampling: there a per-pixel loss costs a sixteenth of the work at stride 4.

    Args:
        sizes: which sizes of images the network takes; by default as its family says.
        features: the submodules whose last maps a term may look at; by default as its family says.
        probabilities: the network gives these, of a softmax or sigmoid; logits whose softmax they are are made of them.
        channels: how many its images have.

    Attributes:
        network: the wrapped module, with its own parameter names.
        family: what is known of networks of its kind.
        sizes: which sizes of images it takes.
        head_stride: how much smaller than the image the head's logits are.
        in_fp32: the network is computed in fp32 under autocast too.
    """

    def __init__(
        self, network: nn.Module, classes: int, sizes: Sizes | None = None, features: Sequence[str] = (),
        probabilities: bool = False, channels: int = RGB,
    ) -> None:  # fmt: skip
        super().__init__()
        self.channels = channels
        self.family = family_of(network)
        self.network = quicken(network)
        self.classes = classes
        self.sizes = sizes or self.family.sizes(network)
        self.probabilities = probabilities
        self.head_stride = 1 if self.sizes.fixed or probabilities else self.family.head_stride(network)
        self.in_fp32 = False
        self._features = tuple(features)
        if features:
            FeatureTap(network, features)  # says which are not there

    @property
    def stride(self) -> int:
        """The number of which the sides of images that it takes are multiples."""
        return self.sizes.multiple

    @property
    def features(self) -> tuple[str, ...]:
        """The submodules of the network whose last maps a term may look at.

        Where nothing is known of it, one small image runs through it, once.

        Raises:
            TeacherError: none gives maps.
        """
        self._features = self._features or self.family.features(self.network) or self._found()
        return self._features

    def _found(self) -> tuple[str, ...]:
        device = next(self.network.parameters(), torch.empty(0)).device
        sides = self.sizes.fixed or tuple(-(-side // self.stride) * self.stride for side in _SMALL)
        try:
            found = last_maps(self.network, torch.zeros(1, self.channels, *sides, device=device))
        except Exception as error:  # of the network's own code
            if isinstance(error, SegkdError) or out_of_memory(error):
                raise
            at = f"an image of {sides[0]}x{sides[1]} does not show where they are: {one_line(error)}"
            raise TeacherError(f"a term looks at features, and {at}; name them (features)") from error
        if not found:
            raise TeacherError("a term looks at features, and no submodule of the network gives (N,C,H,W) maps")
        return found

    @property
    def device(self) -> torch.device:
        """Where it computes; a network of no tensors at all does so on the CPU."""
        return next(chain(self.parameters(), self.buffers()), torch.empty(0)).device

    def forward(self, images: Tensor, at_head: bool = False) -> Tensor:
        """Logits (N,C,H,W), or (N,C,H/head_stride,W/head_stride) with `at_head`, of images (N,K,H,W)."""
        kind = images.device.type
        wide = self.in_fp32 and torch.amp.is_autocast_available(kind)  # not on the device "meta"
        with torch.autocast(kind, enabled=False) if wide else nullcontext():
            return self._logits(images, at_head)

    def _logits(self, images: Tensor, at_head: bool) -> Tensor:
        height, width = images.shape[-2:]
        fitted = self.sizes.fitted(images)
        if at_head and self.head_stride > 1:
            logits = self._of_classes(self.family.at_head(self.network, fitted))
            return logits[..., : -(-height // self.head_stride), : -(-width // self.head_stride)]
        return self.sizes.restored(self._of_classes(as_logits(self.network(fitted))), (height, width))

    def _of_classes(self, maps: Tensor) -> Tensor:
        """Logits of all classes. One logit z of two is (0, z), whose softmax is the sigmoid of z."""
        alone = maps.shape[1] == 1 and self.classes == 2
        if self.probabilities:
            maps = torch.cat([1 - maps, maps], 1) if alone else maps
            return maps.float().clamp(_LEAST).log()
        return torch.cat([torch.zeros_like(maps), maps], 1) if alone else maps

    def keeps_head(self, size: Size) -> bool:
        """Whether the head's logits of images (H,W) tell all about those at the images' size."""
        return self.sizes.takes(size) and not any(side % self.head_stride for side in size)

    def from_head(self, logits: Tensor) -> Tensor:
        """Logits at the head's resolution upsampled as the network itself does it, of images of which it `keeps_head`."""
        return logits if self.head_stride == 1 else self.family.from_head(self.network, logits, self.head_stride)


def parameters_of(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def flops_of(module: nn.Module, height: int, width: int) -> int | None:
    """Floating-point operations (2 per multiply-add) of one forward of a (1,K,height,width) image in eval mode.

    They are those of the architecture, whatever a device saves of them: nothing is computed, unless the network makes tensors
    of its own, which lie on a real device: then one image is. None where it cannot be run on a single image at all.
    """
    training, images = module.training, (1, getattr(module, "channels", RGB), height, width)
    module.eval()
    try:
        shapes = {name: value.to("meta") for name, value in (*module.named_parameters(), *module.named_buffers())}
        return _counted(partial(torch.func.functional_call, module, shapes), images, torch.device("meta"))
    except Exception:  # what a network's own code may raise is anything
        device = next(module.parameters(), torch.empty(0)).device
        with suppress(Exception):
            return _counted(module, images, device)
        return None
    finally:
        module.train(training)


def _counted(forward: Callable[[Tensor], object], images: tuple[int, ...], device: torch.device) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(torch.zeros(images, device=device))
    return int(counter.get_total_flops())
