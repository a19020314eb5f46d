"""Weights from files: the tensors in whatever a training script wrapped them, and whether they are those of a network."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segkd.foundation import terminal
from segkd.foundation.errors import TeacherError, one_line
from segkd.machine.memory import out_of_memory
from segkd.models.family import families, family_of
from segkd.models.tensors import Damaged, TorchScript, load_pickled, load_safetensors

State = dict[str, Tensor]
IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""What `save_pretrained` writes beside a `config.json`."""
KNOWN = ("state_dict", "model", "model_state_dict")
"""Where most scripts keep weights; of several entries the first of these is taken."""
DEEPEST = 3
_ENDINGS = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".safetensors", ".pkl")
_WRAPPERS = ("module.", "_orig_mod.")  # of torch's DataParallel, DistributedDataParallel, AveragedModel and compile
_AVERAGED = re.compile(r"ema|average|swa|shadow", re.IGNORECASE)
_NO_WEIGHTS = re.compile(r"optim|sched|scaler|loss|criterion|metric", re.IGNORECASE)
_ELSEWHERE = {
    "torchvision's kind": ({"backbone", "classifier"}, {"backbone", "classifier", "aux_classifier"}),
    "mmsegmentation": ({"backbone", "decode_head"}, None),
}
"""Libraries by the modules that their networks have: those that must be there, and all that may be."""
_COUNTED = ("total_ops", "total_params")
"""What thop, which counts operations, leaves in a network."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def weights_file(path: Path) -> Path:
    """The file of weights that a path names: itself, or the one in a folder that `save_pretrained` wrote."""
    return next((path / name for name in IN_FOLDER if os.path.isfile(path / name)), path)


def read_state(path: Path, made_by: str | None = None, trust_pickle: bool = False, entry: str | None = None) -> State:
    """The tensors of a weights file: safetensors, or a torch checkpoint without pickled code.

    Where a checkpoint holds several networks' worth, such as an average beside the live weights, a line says which was
    taken.

    Args:
        path: the file, or a folder that `save_pretrained` wrote.
        made_by: the recipe that makes this file, for the error message of a missing one.
        trust_pickle: also load files that need pickle; it runs whatever code they hold.
        entry: the entry of a checkpoint to take, `a.b` for one within another; or the prefix of a network in one.

    Raises:
        TeacherError: no such file or entry, not readable, or it needs pickle.
    """
    file = weights_file(path)
    if os.path.isdir(file):
        if shards := [name for name in IN_FOLDER if os.path.isfile(path / f"{name}.index.json")]:
            how = "save_pretrained(FOLDER, max_shard_size='1TB') writes one"
            raise TeacherError(
                f"{path}: its weights are in several files ({shards[0]}.index.json), and one is read: {how}"
            )
        raise TeacherError(f"{path}: a folder without {' or '.join(IN_FOLDER)}; name the file of the weights")
    if not os.path.isfile(file):
        hint = f"make it with: segkd teach {made_by}" if made_by else "check the path in the recipe"
        if not made_by and path.suffix not in _ENDINGS:
            hint += f", or name what lies on the hub as hf://{path.parent.name}/{path.name}"
        raise TeacherError(f"{path}: no such weights file; {hint}")
    if file.suffix == ".safetensors":
        try:
            return _unwrapped(load_safetensors(file))
        except (ValueError, OSError) as error:
            reason = one_line(error)
            raise TeacherError(f"{file}: not a valid safetensors file ({reason}); fetch or train it again") from error
    loaded = _trusted(file) if trust_pickle else _untrusted(file)
    found = dict(_states_in(loaded))
    if not found:
        has = f" but {first_few(list(map(str, loaded)))}" if isinstance(loaded, dict) and loaded else ""
        raise TeacherError(f"{file}: holds no state_dict of tensors{has}; save model.state_dict()")
    if entry is not None and entry not in found and (inside := _within(found, entry)):
        return _unwrapped(inside)
    return _unwrapped(found[_chosen(found, file, entry)])


def _untrusted(file: Path) -> Any:
    try:
        return load_pickled(file)
    except TorchScript as error:
        how = "save torch.jit.load(FILE).state_dict() with torch.save, or run it as it is: teacher.arch=exported"
        raise TeacherError(f"{file}: a TorchScript archive, not weights; {how}") from error
    except Damaged as error:
        raise TeacherError(
            f"{file}: not a weights file, or a damaged one ({one_line(error)}); fetch or save it again"
        ) from error
    except (ValueError, OSError) as error:
        advice = "save a state_dict as .safetensors, or pass --trust-pickle if you trust its source"
        raise TeacherError(f"{file}: not loadable without pickle ({one_line(error)}); {advice}") from error


def _trusted(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:  # torch raises many kinds for a damaged file, and its own code whatever it likes
        if out_of_memory(error):
            raise
        advice = "save a state_dict as .safetensors where its code is installed"
        raise TeacherError(f"{file}: not loadable, with pickle either ({one_line(error)}); {advice}") from error


def _states_in(value: Any, entry: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """The state dicts in what a file holds, each with the entry that leads to it; not those of optimisers."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if not isinstance(value, dict) or not value:
        return
    if all(isinstance(key, str) and isinstance(each, Tensor) for key, each in value.items()):
        yield entry, dict(value)
    elif depth < DEEPEST:
        for key, each in value.items():
            if isinstance(key, str) and not _NO_WEIGHTS.search(key):
                yield from _states_in(each, f"{entry}.{key}".removeprefix("."), depth + 1)


def _within(found: Mapping[str, State], prefix: str) -> State:
    """The tensors whose names begin with a prefix, without it; of the first state dict that has any."""
    for state in found.values():
        if inside := {key[len(prefix) + 1 :]: value for key, value in state.items() if key.startswith(f"{prefix}.")}:
            return inside
    return {}


def _chosen(found: Mapping[str, State], file: Path, entry: str | None) -> str:
    """The entry to take; a line says so where there are others, or it has an uncommon name."""
    names = [one_line(name, 60) for name in found]
    if entry is not None:
        if entry not in found:
            has = ", ".join(names) if names != [""] else "no entries"
            raise TeacherError(f"{file}: weights_key: no entry {entry!r} with weights; it has {has}")
        return entry
    live = [name for name in found if not _AVERAGED.search(name)] or list(found)
    common = [name for name in live if name in KNOWN]
    if len(live) > 1 and not common:
        raise TeacherError(
            f"{file}: several entries hold weights ({', '.join(names)}): choose with teacher.weights_key"
        )
    chosen = (common or live)[0]
    others = [one_line(name, 60) for name in found if name != chosen]
    if others:
        _say_taken(str(file), one_line(chosen, 60), others)
    elif chosen not in ("", *KNOWN):
        terminal.say(f"{file}: took the weights in {_kind(one_line(chosen, 60))}")
    return chosen


def _say_taken(source: str, taken: str, others: Sequence[str]) -> None:
    others = [*filter(_AVERAGED.search, others), *(name for name in others if not _AVERAGED.search(name))]
    takes = f"teacher.weights_key={others[0]} takes the other"
    where = f"in {_kind(taken)}" if taken else "without a prefix"
    terminal.say(f"{source}: took the weights {where}, not {', '.join(map(_kind, others))}; {takes}")


def _kind(name: str) -> str:
    """The name of an entry, and whether it seems to be an average."""
    return f"{name} (an average, it seems)" if _AVERAGED.search(name) else name


def _unwrapped(state: State) -> State:
    """The tensors by the names that they had before torch wrapped their network."""
    while prefix := next((p for p in _WRAPPERS if any(key.startswith(p) for key in state)), None):
        inside = {key: value for key, value in state.items() if key != "n_averaged"}
        if not all(key.startswith(prefix) for key in inside):
            break
        state = {key.removeprefix(prefix): value for key, value in inside.items()}
    return state


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `network`, strictly; the error is one line with the first three keys that do not fit.

    A prefix that all of the network's keys have is taken away, and what is no part of a segmentation network (a
    classification head, losses beside the network) left out, with a line.

    Raises:
        TeacherError: missing or extra keys, another shape or kind of number, a number that is not finite, or a variance
            below 0.
    """
    own, family = network.state_dict(), family_of(network)
    state = _of_network(family.renamed(network, state), own, family.beside, source)
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    if missing or extra:
        raise TeacherError(f"{source}: {_misfit(missing, extra, state, type(network).__name__)}")
    wrong = [
        f"{key}: expected {difference}" for key, value in own.items() if (difference := _difference(value, state[key]))
    ]
    if wrong:
        raise TeacherError(f"{source}: {first_few(wrong, '; ')}; {_advice(own, state)}")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.float().isfinite().all()]
    if broken:
        raise TeacherError(f"{source}: not finite: {first_few(broken)}; train or fetch it again")
    below = [key for key, value in state.items() if key.endswith("running_var") and (value < 0).any()]
    if below:
        raise TeacherError(f"{source}: a variance below 0: {first_few(below)}; train or fetch it again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, strict=True)


def has_one_logit(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether a file has the head of one logit, a sigmoid's, that a network of two classes has not."""
    heads = {key: (1, *value.shape[1:]) for key, value in network.state_dict().items() if value.shape[:1] == (2,)}
    return any(
        value.shape == shape for key, value in state.items() for own, shape in heads.items() if key.endswith(own)
    )


def _of_network(state: Mapping[str, Tensor], own: Mapping[str, Tensor], beside: tuple[str, ...], source: str) -> State:
    """The tensors of a file that are the network's, by its own names, as far as that can be told; else as they are."""
    counter = "num_batches_tracked"  # of no account in eval mode; torch before 0.4.1 had none
    needed = [key for key in own if not key.endswith(counter)]
    prefixes = {key.removesuffix(needed[0]) for key in state if key.endswith(needed[0])} if needed else set()
    whole = [p for p in prefixes if p[-1:] in ("", ".") and all(p + key in state for key in needed)]
    if not whole:
        return dict(state)
    prefix, *others = sorted(
        whole, key=lambda p: (bool(_AVERAGED.search(p)), p.rstrip(".") not in ("", *KNOWN), len(p))
    )
    if others and not _AVERAGED.search(others[0]) and prefix.rstrip(".") not in ("", *KNOWN):
        names = ", ".join(one_line(p.rstrip("."), 60) for p in sorted(whole))
        raise TeacherError(f"{source}: holds several networks ({names}): choose with teacher.weights_key")
    if others:
        _say_taken(source, one_line(prefix[:-1], 60) if prefix else "", [one_line(p[:-1], 60) for p in others])
    elif _AVERAGED.search(prefix):
        terminal.say(f"{source}: took the weights in {_kind(one_line(prefix[:-1], 60))}")
    within = tuple(p for p in others if p.startswith(prefix))
    inside = {key.removeprefix(prefix): value for key, value in state.items()
              if key.startswith(prefix) and not key.startswith(within)}  # fmt: skip
    more = [key for key in inside if key not in own and (key.startswith(beside) or key.endswith(_COUNTED))]
    left = [key for key in state if not key.startswith((prefix, *others))] + [prefix + key for key in more]
    if left := [key for key in left if not key.endswith(_COUNTED)]:
        terminal.say(f"{source}: left out {first_few(left)}: no part of the segmentation network")
    inside = {key: value for key, value in inside.items() if key not in more}
    return {key: value for key, value in own.items() if key.endswith(counter) and key not in inside} | inside


def _misfit(missing: Sequence[str], extra: Sequence[str], state: Mapping[str, Tensor], kind: str) -> str:
    """What is wrong with the names of a file's tensors, and what to do."""
    keys = [key.removeprefix("model.") for key in state]
    named = next(filter(None, (family.named(keys) for family in families())), None)
    if named not in (None, kind):
        return f"the weights of a {named}: set teacher.arch={named} and teacher.encoder=null"
    modules = {key.partition(".")[0] for key in keys}
    for library, (needed, possible) in _ELSEWHERE.items():
        if needed <= modules and (possible is None or modules <= possible):
            return (
                f"the weights of a network of {library} ({', '.join(sorted(needed))}), which segkd does not build:"
                " bring its code with --teacher-file (docs/own_teacher.md)"
            )
    parts = [f"{name} {first_few(keys)}" for name, keys in (("missing", missing), ("unexpected", extra)) if keys]
    return f"not the weights of this network: {'; '.join(parts)}; check arch, encoder, options"


def _advice(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What to do about tensors of another shape."""
    head = [key for key in own if key.startswith("segmentation_head") and own[key].shape != state[key].shape]
    if head and all(state[key].ndim and len(state[key]) == 1 for key in head):
        return "a head of one logit (sigmoid) has two classes: name both, the background's first"
    first = next((key for key, value in own.items() if value.ndim == 4), None)
    ours, theirs = (tuple(tensors[first].shape) if first else () for tensors in (own, state))
    if len(theirs) == 4 and ours[1] != theirs[1] and ours[2:] == theirs[2:]:
        return f"made for images of {theirs[1]} channels, where mean and std have {ours[1]} values: state one for each"
    return "check arch, encoder, options and classes"


def first_few(items: Sequence[str], between: str = ", ") -> str:
    """The first three, for a line of an error; they come from a file, and may be anything."""
    return between.join(one_line(item, 200) for item in items[:3]) + (" ..." if len(items) > 3 else "")


def _difference(own: Tensor, found: Tensor) -> str | None:
    """How a tensor of a file differs in kind from the network's own: bytes of a quantised network, say, are no weights."""
    if own.shape != found.shape:
        return f"shape {tuple(own.shape)}, found {tuple(found.shape)}"
    kinds = _FLOATS if own.is_floating_point() else _COUNTS
    return None if found.dtype in kinds else f"{str(own.dtype)[6:]}, found {str(found.dtype)[6:]}"
