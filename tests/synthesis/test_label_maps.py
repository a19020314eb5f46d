"""Maps of class ids: a function of the move, shared out to processes, and what the teacher has seen."""

import pytest
import torch

from segkd.machine import ranks
from segkd.synthesis import label_maps
from segkd.synthesis.label_maps import KINDS, SEEN, LabelMaps, resampled
from segkd.synthesis.source import Move

SIZE, CLASSES = (24, 32), 7


def maps_of(*kinds, size=SIZE):
    return LabelMaps(kinds, CLASSES, size)


def seen_by(maps, *ids, refused=False):
    """Let the teacher see these maps (N,H,W)."""
    logits = torch.nn.functional.one_hot(torch.stack(ids).long(), CLASSES).permute(0, 3, 1, 2).float()
    maps.remember(logits, torch.tensor(refused))


def borders(ids):
    """The share of neighbours along W that differ."""
    return (ids[..., 1:] != ids[..., :-1]).float().mean().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [SIZE, (17, 40)])
def test_a_map_is_a_function_of_the_move(kind, size):
    maps = maps_of(kind)
    seen_by(maps, *torch.randint(CLASSES, (5, *SIZE))) if kind == "teacher" else None
    first, again, other = (maps(6, size, Move(5, step, 1, 0.5)) for step in (3, 3, 4))
    assert first.shape == (6, *size) and first.dtype == torch.int64 and 0 <= first.min() and first.max() < CLASSES
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(one.flatten().tolist()) for one in first}) == 6


@pytest.mark.parametrize("kinds", [("noise",), ("noise", "teacher", "scenes")])
def test_a_process_has_its_share_of_the_same_maps(kinds, monkeypatch):
    maps, move = maps_of(*kinds), Move(0, 3, 1, 0.5)
    whole = maps(8, SIZE, move)
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    assert torch.equal(maps(8, SIZE, move), whole[4:])
    assert torch.equal(maps(8, SIZE, Move(0, 3, 1)), whole)


def test_noise_has_areas_of_all_classes_and_of_unlike_sizes():
    ids = maps_of("noise")(64, (48, 64), Move(0, 0, 0))
    shares = torch.stack([(ids == k).float().mean((1, 2)) for k in range(CLASSES)])
    assert 0.01 < borders(ids) < 0.2, "areas, where single pixels would have 0.86"
    assert (shares.mean(1) - 1 / CLASSES).abs().max() < 0.08, "no class is preferred"
    assert shares.amax(0).mean() > 0.35, "but in one map one is"


def test_scenes_are_the_shapes_of_pictures_with_random_classes(monkeypatch):
    shapes = torch.arange(24 * 32).view(*SIZE) % 3
    monkeypatch.setattr(label_maps, "SEGMENTS", {"stripes": lambda seed, size: shapes.numpy()})
    label_maps.segments.cache_clear()
    ids = maps_of("scenes")(32, SIZE, Move(0, 0, 0))
    label_maps.segments.cache_clear()
    assert all(len(one[shapes == k].unique()) == 1 for one in ids for k in range(3))
    assert {*ids.flatten().tolist()} == set(range(CLASSES))


def test_each_kind_of_picture_has_fewer_shapes_than_there_are_names():
    for kind, draw in label_maps.SEGMENTS.items():
        shapes = draw(label_maps.FIRST_SEED, (96, 128))
        assert (
            shapes.shape == (96, 128) and 0 <= shapes.min() and 3 < len(set(shapes.flatten())) and shapes.max() < 64
        ), kind


def test_the_teachers_are_two_that_it_has_seen_one_within_the_other():
    maps = maps_of("teacher")
    seen_by(maps, *(torch.full(SIZE, k) for k in range(3)))
    ids = maps(200, SIZE, Move(0, 0, 0))
    assert {*ids.flatten().tolist()} == {0, 1, 2}
    inner = []
    for one in ids:
        kinds, counts = one.unique(return_counts=True)
        assert len(kinds) <= 2
        if len(kinds) == 2:
            found = [(one == k).nonzero() for k in kinds]
            boxes = [(f.amax(0) - f.amin(0) + 1).prod() == len(f) for f in found]
            assert any(boxes), "a box within the other"
            inner.append(counts.min().item() / one.numel())
    assert len(inner) > 90 and min(inner) < 0.05 and max(inner) > 0.4
    left = torch.zeros(SIZE)
    left[:, :8] = 5
    seen_by(maps, *[left] * SEEN)
    columns = maps(40, SIZE, Move(0, 1, 0)).float().mean(1)
    assert (columns[:, 0] == 5).any() and (columns[:, -1] == 5).any(), "half of them are mirrored"


def test_until_the_teacher_has_seen_one_they_are_noise():
    move = Move(0, 3, 1)
    assert torch.equal(maps_of("teacher")(4, SIZE, move), maps_of("noise")(4, SIZE, move))


def test_the_newest_are_remembered_and_a_refused_batch_is_not():
    maps = maps_of("teacher", size=(4, 6))
    ids = [torch.full((4, 6), k % CLASSES) for k in range(SEEN + 3)]
    for one in ids[:2]:
        seen_by(maps, one)
    before = {name: value.clone() for name, value in maps.state_dict().items()}
    seen_by(maps, ids[5], refused=True)
    assert all(torch.equal(value, before[name]) for name, value in maps.state_dict().items())
    seen_by(maps, *ids[2:SEEN])
    seen_by(maps, *ids[SEEN:])
    assert maps.count == SEEN + 3
    assert maps.seen[:, 0, 0].tolist() == [int(one[0, 0]) for one in ids[-3:] + ids[3:SEEN]]
    seen_by(maps, *ids, *ids)
    assert maps.count == 2 * SEEN + 3, "of a batch that is larger, the last"


def test_all_processes_remember_what_each_has_seen(monkeypatch):
    other = torch.full((1, 4, 6), 6)
    monkeypatch.setattr(ranks, "all_gather", lambda ids: torch.stack([ids, other.to(ids)]))
    maps = maps_of("teacher", size=(4, 6))
    seen_by(maps, torch.full((4, 6), 2))
    assert maps.count == 2 and maps.seen[:3, 0, 0].tolist() == [2, 6, 0]


def test_the_answer_of_a_head_is_upsampled_before_it_becomes_ids():
    maps = maps_of("teacher", size=(8, 8))
    logits = torch.zeros(1, CLASSES, 2, 2)
    logits[:, 1, :, 0], logits[:, 4, :, 1] = 1, 3
    maps.remember(logits, torch.tensor(False))
    assert maps.seen[0].unique().tolist() == [1, 4] and (maps.seen[0] == 4).float().mean() > 0.55


def test_only_the_teachers_kind_has_a_state():
    assert not maps_of("noise", "scenes").state_dict()
    maps = maps_of("noise")
    maps.remember(torch.zeros(1, CLASSES, 4, 4), torch.tensor(False))
    assert set(maps_of("noise", "teacher").state_dict()) == {"seen", "count"}


def test_ids_are_resampled_to_the_nearest():
    ids = torch.arange(12).view(1, 3, 4)
    assert torch.equal(resampled(ids, (6, 8)), ids.repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert torch.equal(resampled(resampled(ids, (6, 8)), (3, 4)), ids)
