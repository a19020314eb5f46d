"""One door to every segmentation network: build it, bring it to any image size, find its head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segkd.foundation.errors import RecipeError, TeacherError, one_line
from segkd.machine.layers import quicken
from segkd.machine.memory import out_of_memory
from segkd.models.building import at_most, unknown_arguments
from segkd.models.families.segnet import SegNet

Option = int | float | str | bool | None | list
GIVEN = {"classes", "encoder_name", "encoder_weights", "in_channels", "activation", "aux_params", "kwargs"}
"""Arguments of an architecture that are no options: segkd gives them, or none."""


def create_network(
    arch: str, encoder: str | None, classes: int, options: Mapping[str, Option], *, block: str = "model",
    megabytes: float | None = None,
) -> nn.Module:  # fmt: skip
    """A network of segmentation-models-pytorch, or a SegNet, with random weights.

    Args:
        arch: any smp architecture name (`DeepLabV3Plus`, `fpn`, ...) or `SegNet`; case does not matter.
        encoder: any smp encoder name, `tu-` names of timm included; None for SegNet.
        classes: number of classes C of the logits.
        options: further arguments of the architecture or of a timm encoder, as smp takes them; those of `SegNet`. One that
            is None is left out, which takes a base recipe's back.
        block: the block of the recipe that describes it, for errors.
        megabytes: what it may take while it is built; by default what the machine has left.

    Raises:
        RecipeError: there is no such architecture or encoder, it refuses an option, or it takes more memory.
    """
    options = {key: value for key, value in options.items() if value is not None}
    is_segnet = arch.lower() == "segnet"
    if is_segnet and encoder is not None:
        raise RecipeError(
            [f"{block}.encoder: a SegNet has no choice of encoder: set encoder: null instead of {encoder}"]
        )
    kind = SegNet if is_segnet else architectures().get(arch.lower())
    if kind is None:
        known = ", ".join(sorted(each.__name__ for each in architectures().values()))
        raise RecipeError([f"{block}.arch: no architecture is called {arch} (known: {known}, SegNet)"])
    of = f"{kind.__name__}{f' with encoder {encoder}' if encoder else ''}"
    if not is_local(encoder):
        raise RecipeError(
            [f"{block}.encoder: no encoder is called {encoder}: a name with a source would be downloaded"]
        )
    if unknown := unknown_arguments(kind, encoder, options):
        known = [] if str(encoder).startswith("tu-") else sorted(signature(kind).parameters.keys() - GIVEN)
        has = f"; it has {', '.join(known)}" if known else ""
        raise RecipeError([f"{block}.options: {of} has no option {unknown[0]!r}{has}"])
    arguments = {} if is_segnet else {"encoder_name": encoder, "encoder_weights": None}
    try:
        with at_most(megabytes):
            return kind(classes=classes, **arguments, **options)
    except Exception as error:  # code of two libraries, which check little
        if out_of_memory(error):
            raise
        raise RecipeError([f"{block}: {of} cannot be built: {one_line(error)}"]) from error


def architectures() -> dict[str, type[nn.Module]]:
    """The architectures of segmentation-models-pytorch by their names in small letters."""
    import segmentation_models_pytorch as smp

    kinds = [each for each in vars(smp).values() if isinstance(each, type)]
    return {kind.__name__.lower(): kind for kind in kinds if issubclass(kind, smp.base.SegmentationModel)}


def is_local(encoder: object) -> bool:
    """Whether the name of an encoder stands for code that is installed: timm reads `hf-hub:NAME` from the network."""
    return encoder is None or (isinstance(encoder, str) and ":" not in encoder)


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
    raise TeacherError(
        f"the network's output is no (N,C,H,W) tensor but {type(output).__name__}: adapt it to return logits"
    )


class Adapter(nn.Module):
    """A network that accepts any H and W: pads bottom and right (replicate), crops the logits after.

    Logits come at the image's size, or (`at_head`) at the resolution of the network's own head, before its last
    upsampling: there a per-pixel loss costs a sixteenth of the work at stride 4.

    Attributes:
        network: the wrapped module, with its own parameter names.
        stride: H and W of the network's input are padded to multiples of it.
        head_stride: how much smaller than the image the head's logits are.
        in_fp32: the network is computed in fp32 under autocast too.
    """

    def __init__(self, network: nn.Module, classes: int, stride: int | None = None) -> None:
        super().__init__()
        self.network = quicken(network)
        self.classes = classes
        self.stride = stride if stride is not None else network_stride(network)
        self.head_stride = head_stride(network)
        self.in_fp32 = False

    def forward(self, images: Tensor, at_head: bool = False) -> Tensor:
        """Logits (N,C,H,W), or (N,C,H/head_stride,W/head_stride) with `at_head`, of images (N,3,H,W)."""
        kind = images.device.type
        wide = self.in_fp32 and torch.amp.is_autocast_available(kind)  # not on the device "meta"
        with torch.autocast(kind, enabled=False) if wide else nullcontext():
            return self._logits(images, at_head)

    def _logits(self, images: Tensor, at_head: bool) -> Tensor:
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, self.stride)
        if at_head and self.head_stride > 1:
            network = self.network
            logits = network.segmentation_head[0](network.decoder(network.encoder(padded)))
            return logits[..., : -(-height // self.head_stride), : -(-width // self.head_stride)]
        logits = as_logits(self.network(padded))
        if logits.shape[-2:] != padded.shape[-2:]:
            logits = F.interpolate(logits, padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]

    def from_head(self, logits: Tensor) -> Tensor:
        """Logits at the head's resolution upsampled as the network itself does it, for images that need no padding."""
        if self.head_stride == 1:
            return logits
        _, upsampling, activation = self.network.segmentation_head
        return activation(upsampling(logits))


def pad_to_multiple(images: Tensor, stride: int) -> Tensor:
    """Images (N,C,H,W) with H and W rounded up to multiples of `stride`, padded bottom and right by replication."""
    height, width = images.shape[-2:]
    bottom, right = -height % stride, -width % stride
    return F.pad(images, (0, right, 0, bottom), mode="replicate") if bottom or right else images


def network_stride(network: nn.Module) -> int:
    """The divisor that the network asks of H and W: its encoder's output stride; 32 for a network that tells none."""
    encoder = getattr(network, "encoder", None)
    return int(getattr(encoder, "output_stride", 32))


def head_stride(network: nn.Module) -> int:
    """The factor of the upsampling that ends an smp network; 1 where there is none to leave out."""
    head = getattr(network, "segmentation_head", None)
    if isinstance(head, nn.Sequential) and len(head) == 3 and isinstance(head[1], nn.Upsample):
        from segmentation_models_pytorch.base import SegmentationModel

        if type(network).forward is not SegmentationModel.forward:
            return 1  # a DPT's decoder is given more than the encoder's maps
        return int(head[1].scale_factor)
    return 1


def parameters_of(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in module.parameters())


def flops_of(module: nn.Module, height: int, width: int) -> int | None:
    """Floating-point operations (2 per multiply-add) of one forward of a (1,3,height,width) image in eval mode.

    They are those of the architecture, whatever a device saves of them: nothing is computed, unless the network makes tensors
    of its own, which lie on a real device: then one image is. None where it cannot be run on a single image at all.
    """
    training = module.training
    module.eval()
    try:
        shapes = {name: value.to("meta") for name, value in (*module.named_parameters(), *module.named_buffers())}
        return _counted(partial(torch.func.functional_call, module, shapes), height, width, torch.device("meta"))
    except Exception:  # what a network's own code may raise is anything
        device = next(module.parameters(), torch.empty(0)).device
        with suppress(Exception):
            return _counted(module, height, width, device)
        return None
    finally:
        module.train(training)


def _counted(forward: Callable[[Tensor], object], height: int, width: int, device: torch.device) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(torch.zeros(1, 3, height, width, device=device))
    return int(counter.get_total_flops())
