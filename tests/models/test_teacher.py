"""The frozen teacher, and the reading of weights files: tensors only, errors of one line."""

import pickle
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segkd.foundation.errors import TeacherError
from segkd.models.building import create_network
from segkd.models.family import Sizes
from segkd.models.teacher import Teacher, input_range
from segkd.models.trial import try_passes
from segkd.models.weights import read_state

STATE = {
    "0.weight": torch.arange(6.0).view(2, 3, 1, 1),
    "0.bias": torch.ones(2),
    "1.num_batches_tracked": torch.tensor(3),
}


def teacher() -> Teacher:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    return Teacher(network, ["a", "b", "c", "d"], [0.5] * 3, [0.25] * 3, sizes=Sizes(4))


class Hostile:
    """Pickles to a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def assert_same(found: dict) -> None:
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], value) for key, value in STATE.items())


def test_it_stays_in_eval_mode_whatever_is_asked():
    model = teacher().train()
    assert not any(module.training for module in model.modules())
    parent = nn.ModuleList([model]).train()
    assert parent.training
    assert not any(module.training for module in model.modules())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = torch.randn(2, 3, 5, 7)
    assert torch.equal(model(images), model(images))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_gradients_flow_through_it_and_not_into_it():
    model = teacher()
    images = torch.randn(2, 3, 5, 7, requires_grad=True)
    model(images).square().mean().backward()
    assert images.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_it_knows_its_classes_and_normalisation():
    model = teacher()
    assert (model.classes, model.names, model.mean, model.std) == (4, ("a", "b", "c", "d"), (0.5,) * 3, (0.25,) * 3)


TAUGHT = {"road": (3, 1), "sky": (4,), "rest": (0,)}
"""Of five classes; the third is dropped."""


def summed(logits: Tensor) -> Tensor:
    """What a softmax over the classes that are not dropped gives to those that are taught."""
    shares = torch.cat([logits[:, :2], logits[:, 3:]], 1).softmax(1)  # of 0, 1, 3, 4
    return torch.stack([shares[:, 1] + shares[:, 2], shares[:, 3], shares[:, 0]], 1)


def heads(taught: dict | None = None, **options: object) -> Teacher:
    torch.manual_seed(0)
    network = create_network("DeepLabV3Plus", "tu-resnet10t", 5, {"channels": [8, 8, 16, 16]}).double().eval()
    return Teacher(network, "abcde", [0.5] * 3, [0.25] * 3, taught=taught, **options)


@pytest.mark.parametrize(("size", "at_head"), [((32, 48), False), ((32, 48), True), ((21, 30), False)])
def test_merged_probabilities_are_sums_and_dropped_classes_have_no_share(size, at_head):
    own, mapped, images = heads(), heads(TAUGHT), torch.randn(2, 3, *size, dtype=torch.double, requires_grad=True)
    assert (mapped.names, mapped.classes) == (("road", "sky", "rest"), 5)
    found, wanted = mapped(images, at_head).softmax(1), summed(own(images, at_head))
    torch.testing.assert_close(found, wanted)
    looked_at = torch.randn_like(found)
    torch.testing.assert_close(*(torch.autograd.grad((p * looked_at).sum(), images)[0] for p in (found, wanted)))


def test_what_a_head_tells_is_upsampled_as_without_a_map_unless_classes_are_merged():
    images = torch.randn(2, 3, 32, 48, dtype=torch.double)
    reordered = heads({"sky": (4,), "road": (3,), "rest": (0,)})
    assert reordered.keeps_head((32, 48)) and not heads(TAUGHT).keeps_head((32, 48))
    full = heads()(images)[:, [4, 3, 0]]
    assert torch.equal(reordered(images), full)
    torch.testing.assert_close(reordered.from_head(reordered(images, at_head=True)), full)


def test_logits_of_a_map_that_changes_nothing_are_the_networks_own():
    names = {"first": (0,), "b": (1,), "c": (2,), "d": (3,), "e": (4,)}
    images, model = torch.randn(1, 3, 32, 32, dtype=torch.double), heads(names)
    assert model.names[0] == "first" and torch.equal(model(images), heads()(images))
    assert torch.autograd.grad(model(images.requires_grad_()).sum(), images)[0].isfinite().all()


def test_classes_of_one_logit_and_of_probabilities_are_mapped_too():
    images = torch.randn(2, 3, 8, 8)
    one, softmax = nn.Conv2d(3, 1, 1), nn.Sequential(nn.Conv2d(3, 5, 1), nn.Softmax(1))
    swapped = Teacher(one, ["no", "yes"], [0] * 3, [1] * 3, Sizes(1), taught={"yes": (1,), "no": (0,)})
    torch.testing.assert_close(swapped(images).softmax(1)[:, :1], one(images).sigmoid())
    given = Teacher(softmax, "abcde", [0] * 3, [1] * 3, Sizes(1), probabilities=True, taught=TAUGHT)
    torch.testing.assert_close(given(images).softmax(1), summed(softmax[0](images)))


def test_merged_logits_are_not_rounded_to_bf16_and_a_wrong_count_is_told():
    with torch.autocast("cpu", torch.bfloat16):
        assert (
            Teacher(nn.Conv2d(3, 5, 1), "abcde", [0] * 3, [1] * 3, taught=TAUGHT)(torch.ones(1, 3, 8, 8)).dtype
            == torch.float32
        )
    with pytest.raises(TeacherError, match="the teacher gives 6 maps for 5 classes"):
        Teacher(nn.Conv2d(3, 6, 1), "abcde", [0] * 3, [1] * 3, taught=TAUGHT)(torch.ones(1, 3, 8, 8))


def test_softened_logits_are_noticed_though_sums_of_them_look_like_logits():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Softmax(1))
    model = Teacher(network, "abcde", [0] * 3, [1] * 3, Sizes(1), taught=TAUGHT)
    with pytest.raises(TeacherError, match="gives probabilities, and no logits"):
        try_passes(model, "teacher", "this one", (8, 8), 1, torch.device("cpu"), False)


def test_input_range_is_that_of_normalised_black_and_white():
    low, high = input_range([0.5, 0.4, 0.0], [0.5, 0.2, 1.0])
    assert low.tolist() == pytest.approx([-1, -2, 0])
    assert high.tolist() == pytest.approx([1, 3, 1])


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    assert_same(read_state(tmp_path / "x.safetensors"))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model_state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
)
def test_torch_checkpoints_of_the_common_forms(tmp_path, wrap):
    torch.save(wrap(STATE), tmp_path / "x.pt")
    assert_same(read_state(tmp_path / "x.pt"))


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(TeacherError, match="x.pt: no such weights file; make it with: segkd teach teachers/scenes$"):
        read_state(tmp_path / "x.pt", made_by="teachers/scenes")
    with pytest.raises(TeacherError, match="no such weights file; check the path"):
        read_state(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("cut", [0, 5, 200])
def test_damaged_files_are_one_line(tmp_path, name, cut):
    path = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(STATE, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TeacherError) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: not ")


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"\x80\x02garbage", None], ids=["empty", "page", "noise", "cut"]
)
def test_pickle_is_not_advised_for_a_file_that_it_does_not_help(tmp_path, content):
    path = tmp_path / "x.pt"
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-50] if content is None else content)
    with pytest.raises(
        TeacherError, match=r"x\.pt: not a weights file, or a damaged one \(.*\); fetch or save it again$"
    ):
        read_state(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"epoch": 3, "a": torch.zeros(1)}, {0: torch.zeros(1)}])
def test_what_is_no_state_dict_is_one_line(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(TeacherError, match="holds no state_dict of tensors") as caught:
        read_state(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_hostile_pickle_runs_nothing(tmp_path, write):
    mark = tmp_path / "mark"
    write({"state_dict": Hostile(mark)}, tmp_path / "x.pt")
    with pytest.raises(TeacherError, match="--trust-pickle") as caught:
        read_state(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_trust_pickle_is_what_it_says(tmp_path):
    mark = tmp_path / "mark"
    torch.save({"state_dict": STATE, "note": Hostile(mark)}, tmp_path / "x.pt")
    assert_same(read_state(tmp_path / "x.pt", trust_pickle=True))
    assert mark.exists()


@pytest.mark.parametrize("at_head", [False, True])
def test_one_logit_is_two_classes_whose_softmax_is_its_sigmoid(at_head):
    """Values and gradients, also in a game at the head's resolution."""
    torch.manual_seed(0)
    network = smp.DeepLabV3Plus(
        "tu-resnet10t", encoder_weights=None, classes=1, decoder_channels=16, channels=[8, 8, 8, 8]
    )
    teacher = Teacher(network, ["background", "lesion"], [0.5] * 3, [0.25] * 3)
    images = torch.randn(2, 3, 32, 64, requires_grad=True)
    logits = teacher(images, at_head=at_head)
    logits = teacher.from_head(logits) if at_head else logits
    z = network(images)
    assert logits.shape == (2, 2, 32, 64)
    torch.testing.assert_close(logits.softmax(1)[:, 1:], z.sigmoid())
    for ours, theirs in ((logits.softmax(1)[:, 1], z.sigmoid()), (logits.softmax(1)[:, 0], 1 - z.sigmoid())):
        gradients = (torch.autograd.grad(each.square().sum(), images, retain_graph=True)[0] for each in (ours, theirs))
        torch.testing.assert_close(*gradients)
