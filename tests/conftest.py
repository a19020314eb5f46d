"""A tiny game that plays in milliseconds: a teacher, a recipe that distils it, and four labelled images."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from segkd.recipe import DistillRecipe, load

if TYPE_CHECKING:
    from torch import nn

    from segkd.training.distiller import Distiller
    from tests.faults.harness import Forks

pytest_plugins = ["tests.faults.report"]  # here: a process that only hands out the tests reads no deeper conftest
ROOT = Path(__file__).parents[1]
if "PYTEST_XDIST_WORKER" in os.environ:  # the tests beside these want the other core: before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
NETWORK = "arch: DeepLabV3Plus, encoder: tu-resnet10t, options: {channels: [16, 24, 32, 48], stem_width: 8, decoder_channels: 32}"
RECIPE = f"""\
extends: {ROOT}/recipes/base/ddad.yaml
presets:
  ddad.segkd: {{weights: {{balance: 0.3}}, terms: {{cwd: null}}, game: {{student_moves: 9}}, synth: {{collage_until: 1.0, refine: 0}}}}
  noise: {{terms: {{cwd: null}}}}
  cmi: {{terms: {{cwd: null}}, options: {{updates: 2, memory: 5}}}}
  fastdfkd: {{terms: {{cwd: null}}, options: {{updates: 2}}}}
  dfss: {{terms: {{cwd: null}}, synth: {{refine: 0}}}}
  cgdd: {{synth: {{refine: 0}}}}
  degan: {{terms: {{cwd: null}}, options: {{width: 4}}}}
  mskd: {{terms: {{cwd: null}}}}
  kd: {{terms: {{cwd: null}}, synth: {{augment: [flip, crop, jitter]}}}}
  rdskd: {{options: {{ahead: 0.0}}}}
teacher: {{{NETWORK}, classes: camvid, weights: teacher.safetensors, recipe: teachers/tiny, mean: [0.5, 0.45, 0.4], std: [0.25, 0.25, 0.2]}}
student: {{{NETWORK}, ema: 0.9}}
synth: {{latent: 8, size: [32, 64]}}
data: {{name: null, root: camvid}}
run: {{steps: 4, batch: 2, device: cpu, precision: fp32, save_every: 2, eval_every: 2, sample_every: 2}}
"""
SMALL = {"synth.width": 4, "game.student_moves": 2}
SEGNET = ("student.arch=SegNet", "student.encoder=null",
          "student.options={channels: null, stem_width: null, decoder_channels: null, width: 2}")  # fmt: skip


CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config: pytest.Config) -> None:
    """What the tests keep in the user's cache is kept apart, for all processes of the session.

    A closed terminal means to them what it means to a run, also where `nohup` has started the session.
    """
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    gc.set_threshold(20_000, 20, 20)  # else what torch and the tests hold is looked through a thousand times
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.stash[CACHE] = tempfile.TemporaryDirectory(prefix="segkd-")
        os.environ["XDG_CACHE_HOME"] = config.stash[CACHE].name


def pytest_unconfigure(config: pytest.Config) -> None:
    if CACHE in config.stash:
        config.stash[CACHE].cleanup()


@pytest.fixture
def own_threads() -> Iterator[None]:
    """What a run sets for its process is put back."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(own_threads: None) -> None:
    import torch

    torch.set_num_threads(1)


def tiny_teacher() -> nn.Module:
    """An untrained network whose running statistics have seen images, and whose masks show several classes."""
    import torch

    from segkd.models.building import create_network

    torch.manual_seed(7)
    options = {"channels": [16, 24, 32, 48], "stem_width": 8, "decoder_channels": 32}
    network = create_network("DeepLabV3Plus", "tu-resnet10t", 11, options)
    with torch.no_grad():
        for _ in range(4):
            network.train()(torch.randn(4, 3, 32, 64))
        network.segmentation_head[0].weight *= 5
    return network.eval()


def write_camvid(root: Path) -> None:
    """Four training and two test images of 32x64 in CamVid's layout, all classes and void in every mask."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(root / split / f"{i}.png"), random.integers(0, 256, (32, 64, 3), np.uint8))
            cv2.imwrite(str(root / f"{split}annot" / f"{i}.png"), random.integers(0, 12, (32, 64), np.uint8))


def write_nyuv2(root: Path) -> None:
    """Four training and two test frames of 32x64 in NYUv2's prepared layout, all 13 classes and void in every mask."""
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    for folder in ("images", "labels13"):
        (root / folder).mkdir(parents=True)
    for split, frames in (("train", range(1, 5)), ("test", range(5, 7))):
        (root / f"{split}.txt").write_text("".join(f"{frame}\n" for frame in frames))
        for frame in frames:
            cv2.imwrite(str(root / "images" / f"{frame:04d}.png"), random.integers(0, 256, (32, 64, 3), np.uint8))
            cv2.imwrite(str(root / "labels13" / f"{frame:04d}.png"), random.integers(0, 14, (32, 64), np.uint8))


def hash_of(value: Any) -> str:
    """A hash of all bytes in a nested state."""
    import torch

    total = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            total.update(str((item.dtype, tuple(item.shape))).encode())
            total.update(item.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                add(str(key))
                add(item[key])
        elif isinstance(item, (list, tuple)):
            for inner in item:
                add(inner)
        else:
            total.update(repr(item).encode())

    add(value)
    return total.hexdigest()


@functools.cache  # hundreds of tests ask for the same ones
def recipe_of(path: Path, *overrides: str) -> DistillRecipe:
    """The recipe of a file that stays as it is."""
    recipe = load(path, overrides, "distill")
    assert isinstance(recipe, DistillRecipe)
    return recipe


def little_of(path: Path, *overrides: str) -> list[str]:
    """Overrides that make a method's game small."""
    recipe = recipe_of(path, *overrides)
    synth = recipe.synth
    values = SMALL | ({"synth.replay": 3} if synth.replay else {})
    if "updates" in recipe.options:
        values |= {"options.updates": 2}
    if synth.kind == "images":
        values |= {"data.name": "camvid", "data.final": None}
    return [f"{key}={value if value is not None else 'null'}" for key, value in values.items()]


@dataclass(frozen=True)
class Tiny:
    """The tiny game's files, and how to play it."""

    folder: Path

    @property
    def path(self) -> Path:
        """The recipe's file."""
        return self.folder / "tiny.yaml"

    def recipe(self, case: str = "ddad.segkd", *overrides: str) -> DistillRecipe:
        """The recipe of METHOD or METHOD.VARIANT, with little of everything; METHOD.VARIANT+SegNet has such a student."""
        case, _, student = case.partition("+")
        method, _, variant = case.partition(".")
        chosen = [f"method={method}", *([f"variant={variant}"] if variant else [])]
        chosen += [f"data.root={self.folder}/camvid", f"run.dir={self.folder}/run"]
        little = little_of(self.path, *chosen)
        return recipe_of(self.path, *chosen, *little, *(SEGNET if student else ()), *overrides)

    def game(self, case: str = "ddad.segkd", *overrides: str, bf16: bool = False) -> Distiller:
        """A freshly built game; torch's global generator is left where building it left it."""
        import torch

        from segkd import builders

        recipe = self.recipe(case, *overrides)
        return builders.distiller_of(recipe, builders.teacher_of(recipe.teacher), torch.device("cpu"), bf16)

    def hash(self, value: Any) -> str:
        """A hash of all bytes of a module or of a nested state."""
        return hash_of(value.state_dict() if hasattr(value, "state_dict") else value)

    def hooks(self, *networks: nn.Module) -> int:
        """The forward and backward hooks on all modules of the networks."""
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return sum(len(getattr(m, kind)) for network in networks for m in network.modules() for kind in kinds)

    @contextlib.contextmanager
    def calls(self, network: nn.Module) -> Iterator[list[Any]]:
        """The first inputs of the network's forwards inside the block."""
        inputs: list[Any] = []
        handle = network.register_forward_pre_hook(lambda module, given: inputs.append(given[0].detach().clone()))
        try:
            yield inputs
        finally:
            handle.remove()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny game's folder: recipe, teacher, and four labelled images."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(RECIPE)
    save_file({k: v.contiguous() for k, v in tiny_teacher().state_dict().items()}, folder / "teacher.safetensors")
    write_camvid(folder / "camvid")
    return Tiny(folder)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Children of a preloaded process; threads that wait do not spin, since they may have to share a core."""
    from tests.faults.harness import Forks

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.setenv("OMP_WAIT_POLICY", "passive")
        yield Forks()


@pytest.fixture
def small_files() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """A context in which no file of this process may grow beyond so many bytes: a disk that is full."""

    @contextlib.contextmanager
    def limited(limit: int) -> Iterator[None]:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)

    return limited


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From `far()` on nothing is at hand: on a CPU, what is decided is decided as on an accelerator."""
    from segkd.machine import waiting

    return lambda: monkeypatch.setattr(waiting, "on_cpu", lambda value: False)
