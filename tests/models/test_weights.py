"""What training scripts write: the tensors within are found, what was taken is said, and what is left out."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segkd.foundation.errors import TeacherError
from segkd.models.building import create_network
from segkd.models.weights import load_weights, read_state

TINY = {"channels": [8, 8, 16, 16], "stem_width": 8, "decoder_channels": 16}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return create_network("DeepLabV3Plus", "tu-resnet10t", 3, TINY)


@pytest.fixture(scope="module")
def state(network) -> dict[str, torch.Tensor]:
    return network.state_dict()


def loaded(path, state, **options) -> bool:
    """Whether a file brings a fresh network these tensors."""
    torch.manual_seed(2)
    fresh = create_network("DeepLabV3Plus", "tu-resnet10t", 3, TINY)
    load_weights(fresh, read_state(path, **options), str(path))
    own = fresh.state_dict()
    return all(torch.equal(own[key], value) for key, value in state.items())


def averaged(state):
    return {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


FORMS = {
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "in parallel": lambda s: prefixed(s, "module."),
    "a wrapper in parallel": lambda s: prefixed(s, "module.model."),
    "compiled in parallel": lambda s: {"state_dict": prefixed(s, "module._orig_mod.")},
    "lightning": lambda s: {"state_dict": prefixed(s, "model.") | {"criterion.weight": torch.ones(3)}, "epoch": 3},
    "a prefix of one's own": lambda s: prefixed(s, "my.net."),
    "an averaged model": lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(3)},
    "another entry": lambda s: {"model_state": s, "epoch": 3, "optimizer_state": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "an average alone": lambda s: {"ema": s, "epoch": 3},
    "within another": lambda s: {"checkpoint": {"net": s, "step": 7}},
    "without counters": lambda s: {key: value for key, value in s.items() if "tracked" not in key},
    "counted operations": lambda s: s | {"encoder.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "a classification head": lambda s: s | {"classification_head.3.weight": torch.ones(2, 3)},
    "beside an optimiser by name": lambda s: {"model": s, "optimizer": {"a": {"exp_avg": torch.ones(2)}}},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_training_scripts_write_is_taken(tmp_path, state, form):
    torch.save(FORMS[form](state), tmp_path / "x.pth")
    assert loaded(tmp_path / "x.pth", state | {} if form != "without counters" else FORMS[form](state))


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict", "ema"])
@pytest.mark.parametrize("wrap", ["", "module."])
def test_of_an_average_beside_live_weights_it_is_said_which_was_taken(tmp_path, state, capsys, key, wrap):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": state, key: prefixed(averaged(state), wrap), "epoch": 3}, path)
    assert loaded(path, state)
    [line] = capsys.readouterr().err.splitlines()
    assert f"took the weights in state_dict, not {key} (an average, it seems); " in line
    assert f"teacher.weights_key={key} takes the other" in line
    assert loaded(path, averaged(state), entry=key)
    assert loaded(path, state, entry="state_dict")
    assert not capsys.readouterr().err
    with pytest.raises(TeacherError, match=f"no entry 'emma' with weights; it has state_dict, {key}$"):
        read_state(path, entry="emma")


@pytest.mark.parametrize(
    ("live", "ema"),
    [("model", "ema_model"), ("online_model", "ema_model"), ("net", "averaged.module"), ("", "ema"), ("model", "model.ema")],
)  # fmt: skip
def test_an_average_may_stand_beside_live_weights_under_another_prefix(tmp_path, state, capsys, live, ema):
    path = tmp_path / "x.ckpt"
    both = prefixed(state, f"{live}." if live else "") | prefixed(averaged(state), f"{ema}.")
    torch.save({"state_dict": both | ({"step": torch.tensor(3)} if live else {})}, path)
    assert loaded(path, state)
    taken, *left = capsys.readouterr().err.splitlines()
    words = f"took the weights {f'in {live}' if live else 'without a prefix'}, not {ema} (an average, it seems); "
    assert f"{words}teacher.weights_key={ema} takes the other" in taken
    assert all("left out step: no part" in line for line in left) and len(left) == bool(live)
    assert loaded(path, averaged(state), entry=ema)
    assert not capsys.readouterr().err
    torch.save(prefixed(averaged(state), f"{ema}."), path)
    assert loaded(path, averaged(state))
    assert f"took the weights in {ema} (an average, it seems)" in capsys.readouterr().err


def test_a_choice_that_cannot_be_made_is_the_users(tmp_path, state):
    torch.save(prefixed(state, "student.") | prefixed(averaged(state), "teacher."), tmp_path / "x.pth")
    with pytest.raises(TeacherError, match=r"holds several networks \(student, teacher\): choose with teacher.weights"):
        loaded(tmp_path / "x.pth", state)
    assert loaded(tmp_path / "x.pth", averaged(state), entry="teacher")
    torch.save({"net_g": state, "net_d": averaged(state)}, tmp_path / "x.pth")
    with pytest.raises(
        TeacherError, match=r"several entries hold weights \(net_g, net_d\): choose with teacher.weights"
    ):
        read_state(tmp_path / "x.pth")
    assert loaded(tmp_path / "x.pth", state, entry="net_g")


def test_what_is_left_out_is_said(tmp_path, state, capsys):
    torch.save(FORMS["a classification head"](state), tmp_path / "x.pth")
    assert loaded(tmp_path / "x.pth", state)
    assert "left out classification_head.3.weight: no part of the segmentation network" in capsys.readouterr().err


def test_a_whole_module_is_taken_where_code_is_trusted(tmp_path, network, state):
    torch.save({"model": network, "epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(TeacherError, match="pass --trust-pickle"):
        read_state(tmp_path / "x.pth")
    assert loaded(tmp_path / "x.pth", state, trust_pickle=True)
    torch.save(network, tmp_path / "x.pth")
    assert loaded(tmp_path / "x.pth", state, trust_pickle=True)
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:1000])
    with pytest.raises(TeacherError, match="not loadable, with pickle either") as caught:
        read_state(tmp_path / "x.pth", trust_pickle=True)
    assert "--trust-pickle" not in str(caught.value)


def test_a_torchscript_archive_is_called_one(tmp_path):
    layer = nn.Conv2d(3, 2, 1).eval()
    torch.jit.trace(layer, torch.zeros(1, 3, 4, 4)).save(str(tmp_path / "x.pt"))
    with pytest.raises(
        TeacherError, match=r"a TorchScript archive, not weights; save torch.jit.load\(FILE\).state_dict"
    ):
        read_state(tmp_path / "x.pt")


def test_a_folder_of_save_pretrained(tmp_path, network, state):
    network.save_pretrained(tmp_path / "folder")
    assert loaded(tmp_path / "folder", state)
    (tmp_path / "folder" / "model.safetensors").unlink()
    with pytest.raises(TeacherError, match="folder: a folder without model.safetensors or pytorch_model.bin"):
        read_state(tmp_path / "folder")
    (tmp_path / "folder" / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(
        TeacherError, match=r"several files \(pytorch_model.bin.index.json\), and one is read: save_pretrained"
    ):
        read_state(tmp_path / "folder")


def test_what_may_be_a_name_on_the_hub_is_told_how_to_be_one(tmp_path):
    with pytest.raises(TeacherError, match=r"no such weights file; check.*, or name .* hf://nvidia/segformer-b0_1.0$"):
        read_state(tmp_path / "nvidia" / "segformer-b0_1.0")
    with pytest.raises(TeacherError, match="check the path in the recipe$"):
        read_state(tmp_path / "nvidia" / "x.pth")


@pytest.mark.parametrize(
    ("keys", "library"),
    [
        (["backbone.body.conv1.weight", "classifier.0.convs.0.0.weight"], "torchvision's kind"),
        (["backbone.conv1.weight", "decode_head.conv_seg.weight", "auxiliary_head.conv.weight"], "mmsegmentation"),
    ],
)
def test_weights_of_another_library_are_recognised(network, keys, library):
    with pytest.raises(
        TeacherError, match=f"^x.pth: the weights of a network of {library} .*segkd does not build"
    ) as caught:
        load_weights(network, {key: torch.ones(2) for key in keys}, "x.pth")
    assert "\n" not in str(caught.value)


def changed(state, part, change):
    key = next(key for key in state if part in key)
    return {**state, key: change(state[key])}


def test_what_no_network_of_segkd_can_be(network, state):
    one = {k: v[:1] if k.startswith("segmentation_head") else v for k, v in state.items()}
    with pytest.raises(TeacherError, match=r"a head of one logit \(sigmoid\) has two classes: name both"):
        load_weights(network, one, "x.pth")
    grey = changed(state, "conv1.0.weight", lambda value: value[:, :1])
    with pytest.raises(TeacherError, match="made for images of 1 channels, where mean and std have 3 values"):
        load_weights(network, grey, "x.pth")
    below = changed(state, "running_var", lambda value: value - 2)
    with pytest.raises(TeacherError, match="a variance below 0: encoder"):
        load_weights(copy.deepcopy(network), below, "x.pth")


def test_a_safetensors_file_may_be_wrapped_too(tmp_path, state):
    save_file(prefixed(state, "module.model."), tmp_path / "x.safetensors")
    assert loaded(tmp_path / "x.safetensors", state)
