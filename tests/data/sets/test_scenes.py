"""The data sets of procedural street scenes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from segkd.data import catalogue
from segkd.data.sets.scenes import SCENES, SPLIT_SEEDS, SceneSet
from segkd.foundation import audit
from segkd.foundation.errors import DataError


def test_items_are_samples() -> None:
    scenes = SceneSet("val", count=3, size=(49, 65))
    assert len(scenes) == 3 and scenes.classes is SCENES
    samples = list(scenes)
    assert len({sample.name for sample in samples}) == 3
    for sample in samples:
        assert sample.image.shape == (49, 65, 3) and sample.mask is not None and sample.mask.shape == (49, 65)
        assert sample.mask.max() < len(SCENES)
        assert sample.name.startswith("scenes/val/")
    again = scenes[1]
    assert np.array_equal(again.image, samples[1].image) and np.array_equal(again.mask, samples[1].mask)
    assert np.array_equal(scenes[-1].image, samples[2].image)


@pytest.mark.parametrize("index", [3, -4, 10**9])
def test_index_out_of_range(index: int) -> None:
    with pytest.raises(IndexError):
        SceneSet("train", count=3)[index]


def test_splits_share_no_seed() -> None:
    splits = [SceneSet(split, count=SPLIT_SEEDS).seeds for split in ("train", "val", "test")]
    ends = [(seeds[0], seeds[-1]) for seeds in splits]
    assert all(before[1] < after[0] for before, after in pairwise(ends))
    assert len({SceneSet(split, count=1)[0].image.tobytes() for split in ("train", "val", "test")}) == 3


def test_a_longer_set_begins_with_the_shorter() -> None:
    assert np.array_equal(SceneSet("test", 5)[4].image, SceneSet("test", 9)[4].image)


@pytest.mark.parametrize(("split", "count"), [("trian", 5), ("train", 0), ("train", SPLIT_SEEDS + 1)])
def test_wrong_split_or_count(split: str, count: int) -> None:
    with pytest.raises(DataError, match="scenes"):
        SceneSet(split, count=count)


def test_they_are_found_by_their_recipe_name() -> None:
    found = catalogue.dataset("scenes", None, "test", catalogue.classes_of("scenes"))
    assert len(found) == 500 and found.classes is SCENES
    assert np.array_equal(found[0].image, SceneSet("test")[0].image)


def test_scenes_rendered_in_training_are_counted() -> None:
    before = audit.count("rendered")
    scenes = SceneSet("train", count=4)
    scenes[0]
    assert audit.count("rendered") == before
    with audit.phase("training"):
        list(scenes)
    assert audit.count("rendered") == before + 4
