"""Networks of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from inspect import signature

from torch import Tensor, nn

from segkd.models.building import GIVEN, unknown_arguments
from segkd.models.family import Builder, Described, Family, Size


@cache
def architectures() -> dict[str, type[nn.Module]]:
    """By the names of their classes."""
    import segmentation_models_pytorch as smp

    kinds = [each for each in vars(smp).values() if isinstance(each, type)]
    return {kind.__name__: kind for kind in kinds if issubclass(kind, smp.base.SegmentationModel)}


class SMP(Family):
    """Any architecture with any encoder, those of timm included."""

    beside = ("classification_head.",)

    def architectures(self) -> Mapping[str, Builder]:
        return architectures()

    def build(self, kind: Builder, encoder: str | None, classes: int, options: Mapping[str, object]) -> nn.Module:
        return kind(encoder_name=encoder, encoder_weights=None, classes=classes, **options)

    def described(self, config: Mapping[str, object]) -> Described | None:
        """As `save_pretrained` writes it: the name of the class, and all arguments that it was called with."""
        named, encoder = config.get("_model_class"), config.get("encoder_name")
        kinds = architectures()
        arch = next((name for name in kinds if name.lower() == str(named).lower()), None)
        if arch is None or not isinstance(encoder, str):
            return None
        known = signature(kinds[arch]).parameters.values()
        defaults = {each.name: each.default for each in known if each.name not in GIVEN}
        defaults = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
        foreign = {*GIVEN, *unknown_arguments(kinds[arch], encoder, config)}
        said = [key for key in dict.fromkeys([*defaults, *config]) if key in config and key not in foreign]
        # dropout does nothing in a network that is not trained
        told = {key: config[key] for key in said if not key.startswith("_") and "drop" not in key}
        return Described(arch, encoder, told, defaults)

    def owns(self, network: nn.Module) -> bool:
        return isinstance(network, tuple(architectures().values()))

    def made_for(self, network: nn.Module) -> Size | None:
        """Of timm's transformers their first layer tells."""
        sizes = (module.img_size for module in network.modules() if getattr(module, "strict_img_size", False))
        found = next((size for size in sizes if size is not None), None)
        return None if found is None else (int(found[0]), int(found[1]))

    def head_stride(self, network: nn.Module) -> int:
        from segmentation_models_pytorch.base import SegmentationModel

        head = network.segmentation_head
        ends_so = isinstance(head, nn.Sequential) and len(head) == 3 and isinstance(head[1], nn.Upsample)
        if not ends_so or type(network).forward is not SegmentationModel.forward:
            return 1  # a DPT's decoder is given more than the encoder's maps
        return int(head[1].scale_factor)

    def at_head(self, network: nn.Module, images: Tensor) -> Tensor:
        return network.segmentation_head[0](network.decoder(network.encoder(images)))

    def from_head(self, network: nn.Module, maps: Tensor, stride: int) -> Tensor:
        _, upsampling, activation = network.segmentation_head
        return activation(upsampling(maps))

    def features(self, network: nn.Module) -> tuple[str, ...]:
        return ("encoder", "decoder")


FAMILY = SMP()
