"""Healthy and sick teachers, all made of one that ships: the verdict, and the reason for it."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segkd import builders, runs
from segkd.cli.main import main
from segkd.evaluation.inspection import doubts, shape
from segkd.models.building import create_network
from segkd.models.own import OwnNetwork
from segkd.models.taps import batchnorm_layers
from segkd.models.teacher import Teacher
from segkd.recipe import find, load
from segkd.runs.inspect import Report, inspect

pytestmark = pytest.mark.usefixtures("own_threads")
State = dict[str, Tensor]
FIRST, HEAD = "encoder.model.conv1.0.weight", "segmentation_head.0"
FUSED = """\
from pathlib import Path

import torch
from segkd import builders
from segkd.recipe import find, load
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def whole():
    return builders.teacher_of(load(find("quickstart"), (), "distill").teacher).network


def folded(most=99):
    network = whole().eval()
    leaves = [(name, module) for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    pairs = [(one, two) for one, two in zip(leaves, leaves[1:]) if isinstance(two[1], nn.BatchNorm2d)]
    for (conv_name, conv), (norm_name, norm) in pairs[:most]:
        plain = nn.BatchNorm2d(norm.num_features)
        plain.load_state_dict(norm.state_dict())
        network.set_submodule(conv_name, fuse_conv_bn_eval(conv, plain.eval()))
        network.set_submodule(norm_name, nn.Sequential(*norm.children()))
    return network


def half():
    return folded(18)


class Deaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = whole()

    def forward(self, images):
        return self.network(images.detach())
"""


@pytest.fixture(scope="module")
def state() -> State:
    return load_file(load(find("quickstart"), (), "distill").teacher.weights)


def looked(*overrides: str, own: str | None = None) -> Report:
    recipe = load(find("quickstart"), overrides, "distill", own_teacher=own)
    return inspect(recipe, runs.Options(teacher=own and OwnNetwork.in_file(own)), quick=True)


def saved(state: State, folder: Path) -> str:
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "teacher.safetensors")
    return f"teacher.weights={folder / 'teacher.safetensors'}"


def found(report: Report) -> dict[str, str]:
    """What is not green, by what was looked at."""
    return {finding.what: finding.level for finding in report.findings if finding.level != "green"}


def said(report: Report, what: str) -> str:
    return next(finding.said for finding in report.findings if finding.what == what)


def renormalised(state: State) -> State:
    """For ImageNet's std in place of 0.5: the first layer divides by what its input has become larger."""
    scale = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1) / 0.5
    return {**state, FIRST: state[FIRST] * scale}


def prefixed(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


MODULE = ["teacher.weights=null", "teacher.mean=[0.5, 0.5, 0.5]", "teacher.std=[0.5, 0.5, 0.5]"]
IMAGENET = ["teacher.mean=[0.5, 0.5, 0.5]", "teacher.std=[0.229, 0.224, 0.225]"]


@pytest.mark.parametrize(
    ("change", "overrides"),
    [(dict, []), (prefixed, []), (renormalised, IMAGENET)],
    ids=["plain", "wrapped", "ImageNet"],
)
def test_a_healthy_teacher_is_green(state, tmp_path, change, overrides) -> None:
    report = looked(saved(change(state), tmp_path), *overrides)
    assert report.verdict == "green" and not found(report) and report.plan == []
    assert report.advice == ["method: ddad with variant=pictures, whose generator follows its BatchNorm statistics"]
    assert said(report, "layers") == "23 BatchNorm (14 in encoder, 9 in decoder)"
    assert said(report, "classes").startswith("9 of 9 classes (9 on street scenes, ")


@pytest.mark.parametrize("name", ["camvid_deeplab", "nyuv2_deeplab"])
def test_the_teachers_that_ship_are_healthy(name) -> None:
    report = inspect(load(find(name), (), "distill"), runs.Options(), quick=True)
    assert report.verdict == "green", found(report)


def test_small_images_are_no_reason_for_doubt() -> None:
    """Scenes of 64x64 pixels vary from pixel to pixel more than photographs do."""
    recipe = load(find("camvid_deeplab"), ("synth.size=[64, 64]",), "distill")
    assert doubts(builders.teacher_of(recipe.teacher), recipe.synth.size, False) == []


def test_a_module_of_a_users_own_is_looked_at_alike(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(FUSED)
    report = looked(*MODULE, own="my.py:whole")
    assert report.verdict == "green" and said(report, "statistics") == "all 23 BatchNorm layers were trained"


def test_folded_statistics_are_told(tmp_path, monkeypatch) -> None:
    """Red where the recipe's method compares them, amber where it does not."""
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(FUSED)
    for overrides, level in (((), "red"), (("weights.bn=0",), "amber")):
        report = looked(*MODULE, *overrides, own="my.py:folded")
        assert found(report) == {"statistics": level}
        assert "was folded into them" in said(report, "statistics")
        assert report.advice[0].startswith("method: kd on procedural pictures (method=kd synth.kind=pictures ")
    report = looked(*MODULE, own="my.py:half")
    assert found(report) == {"statistics": "amber"} and said(report, "statistics").startswith(
        "all 5 BatchNorm layers were"
    )


NORMED = """\
import torch
from torch import nn


def build(maps=3, channels=4):
    torch.manual_seed(1)
    head = nn.Conv2d(8, maps, 1)
    norms = [nn.GroupNorm(2, 8), nn.GroupNorm(2, 8)]
    network = nn.Sequential(nn.Conv2d(channels, 8, 3, 1, 1), nn.BatchNorm2d(8), *norms, head)
    with torch.no_grad():
        network(torch.randn(4, channels, 32, 32))
        head.bias -= head(norms[1](norms[0](torch.randn(4, 8, 32, 32)))).mean((0, 2, 3))
    return network


def plain():
    return nn.Sequential(*(layer for layer in build() if not isinstance(layer, nn.BatchNorm2d)))
"""


@pytest.mark.parametrize(("own", "method"), [("build", "ddad with variant=segkd"), ("plain", "dfad")])
def test_images_of_other_channels_get_advice_that_can_be_followed(tmp_path, monkeypatch, own, method) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(NORMED)
    four = ("teacher.weights=null", f"teacher.mean={[0.5] * 4}", f"teacher.std={[0.25] * 4}", "data.name=null")
    report = looked(*four, "teacher.classes=[a, b, c]", "student.weights=none", "game.logits=full", own=f"my.py:{own}")
    assert report.advice[0].startswith(f"method: {method}") and "no pictures have 4 channels" in report.advice[0]
    if own == "build":  # convolutions beside other normalisation have biases that nothing was folded into
        assert said(report, "statistics") == "kept by 1 of 3 normalisation layers: they say little of its images"


def test_classes_that_are_not_as_many_as_maps_are_red_and_the_reason(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(NORMED.replace("channels=4", "channels=3").replace("nn.BatchNorm2d(8), ", ""))
    report = looked(*MODULE, "teacher.classes=[a, b]", "student.weights=none", "data.name=null", own="my.py")
    assert found(report)["statistics"] == "red" and report.obstacle.told.startswith("3 maps for 2 classes; ")


def test_a_network_through_which_no_gradient_comes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(FUSED)
    for method, level in (("ddad", "red"), ("noise", "amber")):
        report = looked(*MODULE, f"method={method}", own="my.py:Deaf")
        assert found(report) == {"gradients": level} and said(report, "gradients") == "none reach the image"
        assert (
            report.advice[0].startswith("method: kd on procedural pictures") and "gives no gradient" in report.advice[0]
        )


def untrained(state: State, draw: random.Random) -> State:
    names = [key.removesuffix(".running_mean") for key in state if key.endswith(".running_mean")]
    fresh = draw.sample(names, draw.randint(len(names) // 2 + 1, len(names)))
    means = {f"{name}.running_mean": torch.zeros_like(state[f"{name}.running_mean"]) for name in fresh}
    return {
        **state,
        **means,
        **{f"{name}.running_var": torch.ones_like(state[f"{name}.running_var"]) for name in fresh},
    }


def with_nan(state: State, draw: random.Random) -> State:
    key = draw.choice([key for key, value in state.items() if value.is_floating_point()])
    broken = state[key].clone()
    broken.view(-1)[draw.randrange(broken.numel())] = draw.choice([float("nan"), float("inf")])
    return {**state, key: broken}


def constant(state: State, draw: random.Random) -> State:
    bias = torch.zeros_like(state[f"{HEAD}.bias"])
    bias[draw.randrange(len(bias))] = 50
    return {**state, f"{HEAD}.weight": state[f"{HEAD}.weight"] * 1e-3, f"{HEAD}.bias": bias}


Sick = tuple[Callable[[State, random.Random], State], str, str]
SICK: dict[str, Sick] = {
    "untrained": (untrained, "statistics", "of 23 BatchNorm layers were never trained"),
    "not finite": (with_nan, "loading", "not finite: "),
    "constant": (constant, "classes", "nothing but "),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", SICK)
def test_a_sick_teacher_is_red_for_the_right_reason(state, tmp_path, kind, seed) -> None:
    """However it came about: each seed makes another one."""
    change, what, words = SICK[kind]
    report = looked(saved(change(state, random.Random(seed)), tmp_path))
    assert report.verdict == "red" and found(report)[what] == "red" and words in said(report, what)
    assert kind == "untrained" or report.advice == ["no method can distil it as it is"]


@pytest.mark.parametrize("seed", range(2))
def test_another_scale_is_red_and_another_normalisation_amber(seed) -> None:
    draw = random.Random(seed)
    scale = draw.uniform(1 / 255, 1 / 20)
    report = looked("teacher.mean=[0, 0, 0]", f"teacher.std=[{scale}, {scale}, {scale}]")
    assert found(report)["normalisation"] == "red" and said(report, "normalisation").endswith(
        "with mean 0.5 and std 0.5"
    )
    report = looked("teacher.mean=[0.485, 0.456, 0.406]", "teacher.std=[0.229, 0.224, 0.225]")
    assert found(report) == {"normalisation": "amber"}


def test_few_classes_are_amber(state, tmp_path) -> None:
    bias = state[f"{HEAD}.bias"].clone()
    bias[4:] -= 50
    report = looked(saved({**state, f"{HEAD}.bias": bias}, tmp_path))
    assert found(report) == {"classes": "amber"} and said(report, "classes").startswith("4 of 9 classes (")
    assert said(report, "classes").endswith("; never vegetation, fence, pole, car ...")


@pytest.mark.parametrize("cut", [0.2, 0.9])
def test_a_file_that_is_none_is_red(state, tmp_path, cut) -> None:
    weights = saved(state, tmp_path)
    data = (tmp_path / "teacher.safetensors").read_bytes()
    (tmp_path / "teacher.safetensors").write_bytes(data[: int(cut * len(data))])
    assert "not a valid safetensors file" in said(looked(weights), "loading")
    torch.save(nn.Sequential(nn.Conv2d(3, 9, 1)), tmp_path / "whole.pth")
    report = looked(f"teacher.weights={tmp_path / 'whole.pth'}")
    assert report.verdict == "red" and "not loadable without pickle" in said(report, "loading")


def test_other_classes_are_red(state, tmp_path) -> None:
    report = looked(saved(state, tmp_path), "teacher.classes=[a, b, c]")
    assert report.verdict == "red" and "segmentation_head.0.weight: expected shape (3, " in said(report, "loading")


def test_the_command_tells_it_with_its_cost_and_writes_json(tiny, tmp_path, capsys) -> None:
    recipe = tiny.recipe("ddad.segkd", f"run.dir={tmp_path}/run")
    (tmp_path / "own.yaml").write_text(recipe.to_yaml())
    code = main(["inspect", str(tmp_path / "own.yaml"), "--json", str(tmp_path / "report.json")])
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == (3 if report["verdict"] == "red" else 0) and f"verdict: {report['verdict']}" in lines
    assert all(any(finding["said"] in line for line in lines) for finding in report["findings"])
    assert set(report["findings"][0]) == {"level", "what", "said", "advice"}
    assert not (tmp_path / "run").exists()


def test_a_report_that_cannot_be_written_is_told_before_the_look(tmp_path, capsys) -> None:
    assert main(["inspect", "quickstart", "--quick", "--json", str(tmp_path / "none/report.json")]) == 2
    assert "no folder" in capsys.readouterr().err


def test_a_red_one_is_exit_code_3(tmp_path, capsys) -> None:
    code = main(["inspect", "quickstart", f"teacher.weights={tmp_path / 'none.safetensors'}", "--quick"])
    out = capsys.readouterr().out
    assert code == 3 and "  red    loading  " in out and "no such weights file" in out and "verdict: red" in out


def test_distill_says_what_speaks_against_its_teacher(tiny, tmp_path, capsys) -> None:
    """Without another image opened or rendered for training."""
    scale = "[0.004, 0.004, 0.004]"
    recipe = tiny.recipe("noise", f"run.dir={tmp_path}/run", "run.steps=1", f"teacher.std={scale}")
    summary = runs.distill(recipe, runs.Options(name="tiny"))
    told = capsys.readouterr().err
    assert "warning: teacher: normalisation: street scenes are " in told
    assert told.index("warning: teacher: normalisation") < told.index("step 1")
    assert summary["real_images_for_training"] == 0


def test_a_look_changes_nothing_of_the_teacher(tiny) -> None:
    teacher = builders.teacher_of(tiny.recipe().teacher)
    before, drawn = tiny.hash(teacher), torch.get_rng_state()
    doubts(teacher, (32, 64), False)
    assert tiny.hash(teacher) == before and tiny.hooks(teacher) == 0 and torch.equal(torch.get_rng_state(), drawn)
    assert batchnorm_layers(teacher.network)


def test_a_network_of_one_size_is_shown_that() -> None:
    swin = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4], "decoder_channels": 16}
    half = [0.5] * 3
    teacher = Teacher(create_network("UPerNet", "tu-swin_tiny_patch4_window7_224", 3, swin), "abc", half, half)
    assert all(line.startswith("warning: teacher: ") for line in doubts(teacher, (224, 224), False))
    assert shape(teacher).said.startswith("images of 224x224 alone; ")


def test_noise_distils_a_teacher_that_gives_no_gradient(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(FUSED)
    small = [
        "run.steps=1",
        "run.batch=2",
        "synth.size=[32, 64]",
        "student.weights=none",
        "data.name=null",
        "run.dir=run",
    ]
    overrides = ["method=noise", "game.logits=full", *MODULE, *small]
    recipe = load(find("quickstart"), overrides, "distill", own_teacher="my.py:Deaf")
    assert runs.distill(recipe, runs.Options(teacher=OwnNetwork.in_file("my.py:Deaf"), quiet=True))["steps"] == 1


def test_what_distil_would_refuse_is_red_in_a_quick_look_too(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(f"{FUSED}\n\ndef ended():\n    return nn.Sequential(whole(), nn.Softmax(1))\n")
    report = looked(*MODULE, own="my.py:ended")
    assert report.verdict == "red"
    assert any("gives probabilities, and no logits" in finding.said for finding in report.findings)


def test_a_network_of_no_numbers_is_red_and_no_bug(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(
        "from torch import nn\n\n\nclass Same(nn.Module):\n    def forward(self, images):\n        return images.repeat(1, 3, 1, 1)\n"
    )
    assert looked(*MODULE, own="my.py:Same").verdict == "red"
