"""Checkpoints under damage: flipped bits, cuts, NaN, hostile pickles, full disks, and runs that were wound back."""

import io
import math
from pathlib import Path

import pytest
import torch

from segkd.foundation.errors import NumbersError, StorageError
from segkd.foundation.files import sha256
from segkd.machine import memory
from segkd.training import checkpoint


def state(step: int, fill: float = 1.0) -> dict:
    return {
        "step": step,
        "recipe": {"run": {"steps": 9}},
        "game": {"w": torch.full((40,), fill), "n": [torch.tensor(step)]},
    }


def saved(folder: Path, *steps: int, keep: int = 9) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [checkpoint.save(folder, step, state(step), keep) for step in steps]


def names(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in checkpoint.listed(folder)]


def flip(path: Path, place: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[place if place >= 0 else len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_what_is_saved_is_loaded(tmp_path):
    (path,) = saved(tmp_path, 3)
    found = checkpoint.load(path)
    assert found["step"] == 3
    assert found["recipe"] == {"run": {"steps": 9}}
    assert torch.equal(found["game"]["w"], torch.ones(40))
    assert path.name == f"step-00000003-{sha256(path)}.ckpt"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_equal_states_are_equal_bytes(tmp_path):
    assert saved(tmp_path / "a", 3)[0].name == saved(tmp_path / "b", 3)[0].name


def test_a_state_that_was_loaded_and_one_that_was_not_are_equal_bytes(tmp_path):
    network = torch.nn.BatchNorm2d(2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2, 3, 3)).sum().backward()
    optimizer.step()
    own = {"step": 1, "game": {"network": network.state_dict(), "optimizer": optimizer.state_dict()}}
    first = checkpoint.save(tmp_path, 1, own, 9)
    again = checkpoint.load(first)
    other = {"step": 1, "game": again["game"]}  # one key is the program's own text, the equal one below it is not
    assert checkpoint.save(tmp_path, 1, other, 9) == first
    assert type(again["game"]["network"]) is dict


def test_nothing_there_is_a_new_run(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    assert checkpoint.newest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("place", [0, 1, 40, 200, -1])
def test_a_flipped_bit_is_seen_wherever_it_is(tmp_path, place):
    (path,) = saved(tmp_path, 3)
    flip(path, place)
    with pytest.raises(StorageError, match="damaged") as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_the_checkpoint_before_a_damaged_one_is_used_and_the_damaged_named(tmp_path, damage):
    paths = saved(tmp_path, 10, 20, 30)
    damage(paths[2])
    found, lines = checkpoint.newest(tmp_path)
    assert found["step"] == 20
    assert len(lines) == 1
    assert str(paths[2]) in lines[0]
    damage(paths[1])
    found, lines = checkpoint.newest(tmp_path)
    assert found["step"] == 10
    assert [str(path) in line for path, line in zip((paths[2], paths[1]), lines, strict=True)] == [True, True]


def test_all_damaged_is_an_error_and_no_new_run(tmp_path):
    for path in saved(tmp_path, 10, 20):
        flip(path)
    with pytest.raises(StorageError, match="no older one is whole") as caught:
        checkpoint.newest(tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_went_wrong_are_not_written(tmp_path, value):
    (good,) = saved(tmp_path, 10)
    bad = state(20)
    bad["game"]["n"].append({"moment": torch.tensor([0.0, value])})
    with pytest.raises(NumbersError, match=r"step 20: game.n\[1\].moment is not finite") as caught:
        checkpoint.save(tmp_path, 20, bad, 1)
    assert "\n" not in str(caught.value)
    assert checkpoint.listed(tmp_path) == [good]
    assert checkpoint.newest(tmp_path)[0]["step"] == 10


def test_half_precision_is_looked_at_too(tmp_path):
    with pytest.raises(NumbersError):
        checkpoint.save(tmp_path, 1, {"w": torch.tensor([math.inf], dtype=torch.bfloat16)}, 1)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_rotation_keeps_the_newest(tmp_path, keep):
    saved(tmp_path, 5, 8, 90, 100, 1000, keep=keep)
    assert names(tmp_path) == [1000, 100, 90, 8, 5][:keep]


def test_rotation_touches_nothing_else(tmp_path):
    (tmp_path / "step-notes.ckpt").touch()
    (tmp_path / "best.ckpt").touch()
    saved(tmp_path, 1, 2, 3, keep=1)
    assert {p.name for p in tmp_path.iterdir()} >= {"step-notes.ckpt", "best.ckpt"}
    assert names(tmp_path) == [3]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_run_that_was_wound_back_goes_on_from_its_own_checkpoints(tmp_path, keep):
    # resumed from step 10 by name, after 20 and 30 had been written: `auto` must go on from the new 20
    saved(tmp_path, 10, 20, 30)
    path = checkpoint.save(tmp_path, 20, state(20, fill=2.0), keep)
    assert path.is_file()
    assert names(tmp_path) == [20, 10][:keep]
    assert checkpoint.newest(tmp_path)[0]["game"]["w"][0] == 2


def test_a_damaged_checkpoint_never_outlives_the_good_one_of_its_step(tmp_path):
    paths = saved(tmp_path, 10, 20)
    flip(paths[1])
    for fill in (2.0, 3.0, 4.0, 5.0):  # names sort by their hashes: one of these sorts before the damaged one
        good = checkpoint.save(tmp_path, 20, state(20, fill), 1)
        assert checkpoint.listed(tmp_path) == [good]
        assert checkpoint.newest(tmp_path)[1] == []


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def named_by_its_hash(folder: Path, step: int, data: bytes) -> Path:
    path = folder / f"step-{step:08d}-{sha256(data)}.ckpt"
    path.write_bytes(data)
    return path


def test_a_hostile_pickle_with_the_right_hash_runs_nothing(tmp_path):
    saved(tmp_path, 10)
    buffer = io.BytesIO()
    torch.save({"step": 20, "game": Hostile(tmp_path / "mark")}, buffer)
    path = named_by_its_hash(tmp_path, 20, buffer.getvalue())
    with pytest.raises(StorageError, match="no checkpoint of segkd") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)
    assert checkpoint.newest(tmp_path)[0]["step"] == 10
    assert not (tmp_path / "mark").exists()


def test_bytes_that_are_no_checkpoint(tmp_path):
    with pytest.raises(StorageError, match="no checkpoint of segkd"):
        checkpoint.load(named_by_its_hash(tmp_path, 1, b"hello"))


@pytest.mark.parametrize("name", ["model.pt", "step-00000001-abc.ckpt"])
def test_other_names_are_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(StorageError, match="not named step-STEP-SHA.ckpt"):
        checkpoint.load(tmp_path / name)


def test_a_missing_file(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        checkpoint.load(tmp_path / f"step-00000001-{'0' * 64}.ckpt")


def test_a_full_disk_leaves_the_checkpoints_before_it(tmp_path, small_files):
    (good,) = saved(tmp_path, 10)
    with small_files(500), pytest.raises(StorageError, match="cannot write"):
        checkpoint.save(tmp_path, 20, state(20), 1)
    assert [p.name for p in tmp_path.iterdir()] == [good.name]
    assert checkpoint.newest(tmp_path)[0]["step"] == 10


def test_a_checkpoint_is_written_without_a_second_copy_in_memory(tmp_path):
    large = {"bank": [torch.ones(1024, 1024) for _ in range(64)]}  # 256 MB
    before = memory.resident_mb()
    memory.forget_peak()
    if before is None or memory.peak_mb() > before + 16:
        pytest.skip("the system does not tell, or does not forget, how much memory was held")
    checkpoint.save(tmp_path, 1, large, 1)
    assert memory.peak_mb() - before < 128
