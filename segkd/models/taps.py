"""Forward hooks that read the statistics of a network's layers, and its features, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.hooks import RemovableHandle

from segkd.foundation.errors import TeacherError

NORMS = ("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm", "RmsNorm")
"""In the names of the classes of normalisation layers."""
Moments = tuple[Tensor, Tensor]
"""Mean and variance (C,)."""


@dataclass(frozen=True)
class BatchStatistics:
    """Per-channel statistics (C,) of one layer: of this batch, and those that training left behind, or recorded images did."""

    name: str
    mean: Tensor
    var: Tensor
    running_mean: Tensor
    running_var: Tensor
    images: Moments
    """Those of each image (N,C), without a graph."""


def batchnorm_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every layer that carries running statistics of 2-D maps: BatchNorm2d, SyncBatchNorm, frozen and timm variants."""
    return {
        name: module
        for name, module in network.named_modules()
        if (
            isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))
            or type(module).__name__.startswith("FrozenBatchNorm")
        )
        and module.running_mean is not None
    }


def untrained(layers: Mapping[str, nn.Module]) -> list[str]:
    """The names of those whose running statistics are as at the beginning, with means of 0."""
    return [name for name, module in layers.items() if not module.running_mean.abs().max() > 0]


def check_statistics(network: nn.Module, source: str, advice: str = "set weights.bn=0 and synth.refine=0") -> int:
    """The number of layers with trained running statistics; `advice` is what to do where they are asked for in vain.

    Raises:
        TeacherError: there is no BatchNorm layer, or none was ever trained (means 0 and variances 1).
    """
    layers = batchnorm_layers(network)
    if not layers:
        seen = "the teacher has no BatchNorm layer (in an exported program none is seen)"
        raise TeacherError(f"{source}: {seen}; {advice}, or record those of images (segkd record; teacher.statistics)")
    if 2 * len(fresh := untrained(layers)) > len(layers):
        raise TeacherError(
            f"{source}: {len(fresh)} of {len(layers)} BatchNorm layers were never trained or are folded;"
            f" {advice}, or bring the unfolded teacher"
        )
    return len(layers)


def few_statistics(network: nn.Module) -> list[str]:
    """A line where most normalisation layers are no BatchNorm, and a comparison of statistics says little; else none."""
    kept = len(batchnorm_layers(network))
    layers = kept + sum(type(module).__name__.startswith(NORMS[1:]) for module in network.modules())
    said = f"teacher: statistics are kept by {kept} of {layers} normalisation layers: what they say of its images is little"
    return [said] if kept < layers / 2 else []


def norm_of(module: nn.Module) -> str | None:
    """Which of NORMS a layer is, by its kind or its name; None: none."""
    if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
        return NORMS[0]
    return next((kind for kind in NORMS if kind in type(module).__name__), None)


def normalisations(network: nn.Module) -> dict[str, nn.Module]:
    """Every normalisation layer, of any kind; those of a TorchScript program take no hook, and are left out."""
    return {name: module for name, module in network.named_modules() if norm_of(module) is not None}


class BatchNormTap:
    """Collects the statistics of every BatchNorm input while open; leaves no hook behind.

    Layers whose input is 1x1 pixel (image pooling of an ASPP) are skipped: their variance would come from the few
    images of the batch alone. The statistics keep their graph, so that a generator can be moved by them.

    Args:
        recorded: statistics by layer that take the place of running ones. Then these layers are listened to: to the input of
            one that normalises, of whatever kind, and to the output of any other.
    """

    def __init__(self, network: nn.Module, recorded: Mapping[str, Moments] | None = None) -> None:
        self.recorded = recorded or {}
        self.layers = {name: network.get_submodule(name) for name in self.recorded} or batchnorm_layers(network)

    @contextmanager
    def open(self) -> Iterator[list[BatchStatistics]]:
        """Listen to the forwards inside the block; yields the list that fills, in the order of execution."""
        found: list[BatchStatistics] = []
        handles = [self._hooked(module, self._listener(name, found)) for name, module in self.layers.items()]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    def _hooked(self, module: nn.Module, listen: Callable[[nn.Module, Tensor], None]) -> RemovableHandle:
        if norm_of(module) is not None:
            return module.register_forward_pre_hook(lambda m, inputs: listen(m, channel_maps(m, inputs[0])))
        return module.register_forward_hook(lambda m, inputs, output: listen(m, list(_maps_in(output))[-1]))

    def _listener(self, name: str, found: list[BatchStatistics]) -> Callable[[nn.Module, Tensor], None]:
        def listen(module: nn.Module, x: Tensor) -> None:
            if x.shape[-1] * x.shape[-2] == 1:
                return
            mean, var, *images = _Moments.apply(x)
            of_training = self.recorded.get(name) or (module.running_mean, module.running_var)
            found.append(BatchStatistics(name, mean, var, *of_training, tuple(images)))

        return listen


def channel_maps(norm: nn.Module, x: Tensor) -> Tensor:
    """The input of a normalisation layer as maps (N,C,h,w), or (N,C,L,1) of L tokens.

    LayerNorm and RMSNorm have the channels last, but for those made for maps, which may go by any name.
    """
    last = norm_of(norm) in ("LayerNorm", "RMSNorm", "RmsNorm")
    if last and not (x.dim() == 4 and _takes_maps(norm, x)):
        x = x.movedim(-1, 1)
    return x if x.dim() == 4 else x.reshape(*x.shape[:2], -1, 1)


def _takes_maps(norm: nn.Module, x: Tensor) -> bool:
    """Whether a layer whose kind has the channels last has them second in maps `x`, as smp's SegFormer and LayerNorm2d have."""
    if "2d" in type(norm).__name__ or getattr(norm, "data_format", "") == "channels_first":
        return True
    channels = getattr(norm, "normalized_shape", (None,))[-1] or next(iter(norm.parameters()), x.new_empty(0)).shape[-1]
    if x.shape[1] != channels or x.shape[-1] != channels:
        return x.shape[1] == channels
    try:  # both sides fit: what it makes of maps of another width tells
        norm.forward(x.new_zeros(1, channels, 1, channels + 1))
    except RuntimeError:
        return False
    return True


class _Moments(torch.autograd.Function):
    """Mean and variance (C,) of maps (N,C,H,W), in fp32 at least, and those (N,C) of each, through which no gradient flows.

    On a CPU the kernels of BatchNorm itself read bf16 maps once, where torch.var_mean takes up to forty times as long;
    the gradient is affine in x (a x + b): a BatchNorm in eval mode.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        means, variances = (
            _moments(x) if x.device.type == "cpu" else torch.var_mean(x.float(), (2, 3), correction=0)[::-1]
        )
        mean = means.mean(0)
        ctx.save_for_backward(x, mean)
        ctx.mark_non_differentiable(means, variances)
        return mean, (variances + (means - mean).square()).mean(0), means, variances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_mean: Tensor, to_var: Tensor, *of_images: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = 2 * to_var / count
        offset = to_mean / count - slope * mean
        if x.device.type != "cpu":
            shape = (1, -1, 1, 1)
            return torch.addcmul(offset.view(shape), x.float(), slope.view(shape)).to(x.dtype)
        plain = (torch.zeros_like(mean), torch.ones_like(mean))
        return torch.native_batch_norm(x, slope, offset, *plain, False, 0.0, 0.0)[0]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each image's mean and variance (N,C): the kernel adds up in fp32, which over a whole batch would round too much away."""
    n, c, height, width = x.shape
    dtype = torch.promote_types(x.dtype, torch.float32)
    means, variances = (torch.zeros(n, c, dtype=dtype) for _ in range(2))
    for image, mean, var in zip(x.split(1), means, variances, strict=True):
        torch.ops.aten.batch_norm_update_stats(image, mean, var, 1.0)
    return means, variances * ((height * width - 1) / (height * width))


class FeatureTap:
    """Collects the output maps (N,C,h,w) of named submodules while open, in the order of execution."""

    def __init__(self, network: nn.Module, names: Sequence[str] = ("encoder", "decoder")) -> None:
        try:
            self.modules = [network.get_submodule(name) for name in names]
        except AttributeError as error:
            known = dict(network.named_modules())
            unknown = next(name for name in names if name not in known)
            own = ", ".join(list(known)[1:6])
            raise TeacherError(f"no submodule {unknown!r} to tap; the network's own are {own}") from error
        if any(isinstance(module, torch.jit.ScriptModule) for module in self.modules):
            raise TeacherError("features: TorchScript shows no maps of its submodules")
        self.features: list[Tensor] = []

    @contextmanager
    def open(self) -> Iterator[list[Tensor]]:
        """Listen to the forwards inside the block; yields the list that fills."""
        self.features = []
        handles = [module.register_forward_hook(self._listen) for module in self.modules]
        try:
            yield self.features
        finally:
            for handle in handles:
                handle.remove()

    def _listen(self, module: nn.Module, inputs: tuple, output: object) -> None:
        maps = list(_maps_in(output))
        if not maps:
            raise TeacherError(f"a term looks at features, and {type(module).__name__} gives no (N,C,H,W) maps")
        self.features.append(maps[-1])


@torch.no_grad()
def last_maps(network: nn.Module, image: Tensor) -> tuple[str, ...]:
    """The submodules that give the last map at each size, in the order in which an image (1,3,H,W) runs through them.

    A map has the image's ratio of sides, which a table of attention has not, and more than a pixel. The last ones with
    as many channels as the logits are left out, and so is what runs several times. Of submodules that give the same map, it
    is the outermost.
    """
    ran: list[tuple[str, Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: ran.extend((name, maps) for maps in list(_maps_in(output))[-1:])

    modes = {module: module.training for module in network.modules()}
    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules()
               if name and not isinstance(module, torch.jit.ScriptModule)]  # fmt: skip
    try:
        with torch.autocast(image.device.type, enabled=False), torch.random.fork_rng([]):
            logits = list(_maps_in(network.eval()(image)))[0]
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    while ran and ran[-1][1].shape[1] == logits.shape[1]:
        ran.pop()
    often = [name for name, _ in ran]
    height, width = image.shape[-2:]
    found = {
        (h, w): name for name, maps in ran
        if often.count(name) == 1 and 1 < (h := maps.shape[-2]) <= height and h * width == (w := maps.shape[-1]) * height
    }  # fmt: skip
    return tuple(name for name in often if name in found.values())


def _maps_in(output: object) -> Iterator[Tensor]:
    """The (N,C,H,W) tensors of an output, in order; the encoder of a DPT gives lists within a tuple, a backbone a dict."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        for part in output:
            yield from _maps_in(part)
    elif isinstance(output, Tensor) and output.dim() == 4:
        yield output


@contextmanager
def untouched_statistics(network: nn.Module) -> Iterator[None]:
    """Train-mode forwards inside the block use batch statistics and move no buffer.

    `momentum = 0` would not do: 0 * NaN is NaN and the batch counter still moves.
    """
    tracking = [m for m in network.modules() if getattr(m, "track_running_stats", False)]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
