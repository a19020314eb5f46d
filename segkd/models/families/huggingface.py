"""Networks of Hugging Face's transformers, each as the folder of its weights describes it."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segkd.foundation.channels import RGB
from segkd.foundation.errors import TeacherError, UsageError, one_line
from segkd.machine.memory import out_of_memory
from segkd.models.family import Builder, Family, Size, Sizes
from segkd.recipe.pretrained import input_of

NAMES = ("SegformerForSemanticSegmentation", "UperNetForSemanticSegmentation", "AutoModelForSemanticSegmentation")
ONLY_TEACHERS = True
FROM_FOLDER = True
AUXILIARY = "auxiliary_head."
_FEATURES = {
    NAMES[0]: ("segformer", "decode_head.activation"),
    NAMES[1]: ("decode_head.bottleneck", "decode_head.fpn_bottleneck"),
}
_PROBE = 128  # pixels of an image's side, for the stride of the head: a multiple of every network's


@contextmanager
def quiet() -> Iterator[Any]:
    """transformers, without its warnings, reports and progress bars inside the block.

    Raises:
        UsageError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers
    except ImportError as error:
        raise UsageError("networks of Hugging Face need transformers: pip install 'segkd[hf]'") from error
    library = transformers.utils.logging
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(library.CRITICAL)
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield transformers
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def described(name: str, folder: Path, classes: int, channels: int) -> nn.Module:
    """The network that a folder's `config.json` describes, with random weights; nothing is downloaded, no code of it runs.

    Raises:
        TeacherError: there is no such file, it asks for code of its own, or it describes another network than asked for.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise TeacherError(
            f"{folder}: no folder with a config.json: teacher.weights of {name} is one of save_pretrained"
        )
    try:
        config = json.loads(file.read_text("utf-8"))
        kind = config["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise TeacherError(f"{file}: describes no network of transformers ({type(error).__name__}: {error})") from error
    if config.get("quantization_config"):
        raise TeacherError(f"{file}: quantised weights (quantization_config): save them in fp32, fp16 or bf16")
    if "auto_map" in _keys(config):
        raise TeacherError(
            f"{file}: asks for code of its own (auto_map), which segkd never runs: bring another teacher"
        )
    with quiet() as transformers:
        made = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        maker = getattr(transformers, name)
        if name != NAMES[-1] and not isinstance(made, maker.config_class):
            raise TeacherError(f"{file}: describes a {kind}: set arch: {_class_of(config)}")
        if made.num_labels == 1 and classes == 2:
            made.num_labels = 2  # a sigmoid's head, of one logit: its weights will tell
        for key, wanted, what in (
            ("num_labels", classes, "classes"),
            ("num_channels", channels, "channels of an image"),
        ):
            if getattr(made, key, wanted) != wanted:
                raise TeacherError(f"{file}: {getattr(made, key)} {what}, and the recipe's teacher has {wanted}")
        if hasattr(made, "use_auxiliary_head"):
            made.use_auxiliary_head = False  # it is there for training, and computed all the same
        network = maker._from_config(made) if name != NAMES[-1] else maker.from_config(made)
        said = input_of(folder)
        network.blue_first = said is not None and said.blue_first
        return network.float()  # a configuration may name another dtype, that of its weights


def _keys(value: object) -> Iterator[str]:
    """All keys of a nested value."""
    if isinstance(value, Mapping):
        yield from value
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _keys(each)


def _class_of(config: Mapping[str, Any]) -> str:
    named = next(iter(config.get("architectures") or ()), None)
    return named if named in NAMES else NAMES[-1]


class HuggingFace(Family):
    """Any network for semantic segmentation that transformers has a class for."""

    from_folder = True
    beside = (AUXILIARY,)

    def architectures(self) -> Mapping[str, Builder]:
        return {name: partial(described, name) for name in NAMES}

    def build_from(self, kind: Builder, folder: Path, classes: int, channels: int) -> nn.Module:
        return kind(folder, classes, channels)

    def owns(self, network: nn.Module) -> bool:
        transformers = sys.modules.get("transformers")  # whoever has such a network has imported it
        return transformers is not None and isinstance(network, transformers.PreTrainedModel)

    def named(self, keys: Collection[str]) -> str | None:
        if "decode_head.classifier.weight" not in keys:
            return None
        modules = {key.partition(".")[0] for key in keys}
        return NAMES[0] if "segformer" in modules else NAMES[1] if "backbone" in modules else None

    def labels(self, network: nn.Module) -> tuple[str, ...]:
        names = [str(name) for _, name in sorted(network.config.id2label.items(), key=lambda item: int(item[0]))]
        return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else tuple(names)

    def renamed(self, network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """transformers renames modules, and knows what they were called when a file was written.

        Of a network that is shown blue before red, the first layer's are in the order of segkd's images.
        """
        if network.state_dict().keys() <= state.keys() and not getattr(network, "blue_first", False):
            return state  # as it is, it may be a network that no configuration describes
        try:
            with quiet():
                other, found = type(network).from_pretrained(
                    None, config=network.config, state_dict=dict(state), output_loading_info=True,
                    ignore_mismatched_sizes=True, dtype=torch.float32,
                )  # fmt: skip
        except Exception as error:  # whatever a library has against a file's tensors
            if out_of_memory(error):
                raise
            raise TeacherError(f"transformers cannot take these weights: {one_line(error)}") from error
        wrong = {key: torch.empty(there, device="meta") for key, there, _ in found["mismatched_keys"]}
        more = {key: state.get(key, torch.empty(0)) for key in found["unexpected_keys"]}  # by today's names, too
        loaded = {key: value for key, value in other.state_dict().items() if key not in found["missing_keys"]}
        if getattr(network, "blue_first", False):
            layers = ((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
            first = next(f"{name}.weight" for name, layer in layers if layer.in_channels == 3)
            loaded |= {first: loaded[first].flip(1)} if first in loaded else {}  # so that it takes red first
        return loaded | wrong | more

    def sizes(self, network: nn.Module) -> Sizes:
        configs = (network.config, getattr(network.config, "backbone_config", None))
        side = next((size for each in configs if (size := getattr(each, "image_size", None))), None)
        if side is None:
            return Sizes(1)
        height, width = (side, side) if isinstance(side, int) else side
        any_size = self._answer(network, (height + 32, width + 64)) or not self._answer(network, (height, width))
        return Sizes(1) if any_size else Sizes(fixed=(height, width))

    def head_stride(self, network: nn.Module) -> int:
        answer = self._answer(network, (_PROBE, _PROBE))
        return _PROBE // answer[1] if answer else 1

    def _answer(self, network: nn.Module, size: Size) -> Size | None:
        """The size of the logits for an image of a size; None where it takes no such image. Nothing is computed."""
        tensors = {name: value.to("meta") for name, value in (*network.named_parameters(), *network.named_buffers())}
        try:
            with torch.no_grad(), quiet():
                layers = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
                channels = next((layer.in_channels for layer in layers), RGB)
                images = torch.empty(2, channels, *size, device="meta")
                return tuple(torch.func.functional_call(network, tensors, images)["logits"].shape[-2:])
        except Exception:  # what a network's own code may raise is anything
            return None

    def at_head(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images)["logits"]

    def features(self, network: nn.Module) -> tuple[str, ...]:
        """The deepest maps, and the last before the logits, where their names are known."""
        return _FEATURES.get(type(network).__name__, ())


FAMILY = HuggingFace()
