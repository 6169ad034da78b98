"""An image's split follows from its own path, whatever else is in the folder."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mlae_lab.data.sampled_splits import Classes, sampled, sampled_0_5

BOTH = ("val", "test")


def folder(**counts: int) -> Classes:
    return {name: [f"{name}/{i}.jpg" for i in range(count)] for name, count in counts.items()}


def split_of(splits: dict[str, Classes]) -> dict[str, str]:
    return {path: split for split, classes in splits.items() for paths in classes.values() for path in paths}


@pytest.mark.parametrize("images", [100, 1499, 1500, 6000])
def test_each_sampled_split_is_about_a_fifth_at_every_size(images: int) -> None:
    splits, filled = sampled(folder(a=images // 2, b=images // 2), BOTH, 0)
    counts = Counter(split_of(splits).values())
    deviation = 3 * (images * 0.2 * 0.8) ** 0.5
    assert abs(counts["val"] - images / 5) < deviation
    assert abs(counts["test"] - images / 5) < deviation
    assert not filled


def test_adding_and_removing_images_moves_no_other_image() -> None:
    """Version 0.5 cut a sorted sequence: with 200 images more, 136 of 200 validation images had been trained on."""
    before = folder(a=700, b=700)
    after = {"a": [*before["a"][50:], *(f"a/new {i}.jpg" for i in range(200))], **folder(b=700, c=40)}
    old, new = split_of(sampled(before, BOTH, 0)[0]), split_of(sampled(after, BOTH, 0)[0])
    kept = set(old) & set(new)
    assert len(kept) == 1350
    assert all(old[path] == new[path] for path in kept)
    old, new = split_of(sampled_0_5(before, BOTH, 0)), split_of(sampled_0_5(after, BOTH, 0))
    assert any(old[path] != new[path] for path in kept)


@pytest.mark.parametrize("missing", [BOTH, ("val",), ("test",)])
@pytest.mark.parametrize("seed", range(20))
def test_small_folders_have_every_class_in_train_and_no_empty_split(missing: tuple[str, ...], seed: int) -> None:
    rng = random.Random(seed)
    source = folder(**{name: rng.randint(2, 4) for name in "abc"})
    splits, filled = sampled(source, missing, seed)
    assert set(splits) == {"train", *missing}
    assert set(splits["train"]) == set(source)
    assert sorted(split_of(splits)) == sorted(path for paths in source.values() for path in paths)
    assert len(filled) < 5


def test_split_of_a_small_folder_is_fixed() -> None:
    """Fixed here, so that no machine and no later version splits differently unnoticed."""
    splits, filled = sampled(folder(a=4, ü=4), BOTH, 0)
    assert {split: sorted(p for paths in c.values() for p in paths) for split, c in splits.items()} == {
        "train": ["a/2.jpg", "a/3.jpg", "ü/0.jpg", "ü/2.jpg"],
        "val": ["a/1.jpg", "ü/1.jpg"],
        "test": ["a/0.jpg", "ü/3.jpg"],
    }
    assert not filled


def test_splits_of_version_0_5_are_those_that_it_made() -> None:
    splits = sampled_0_5(folder(a=4, ü=4), BOTH, 0)
    assert {split: sorted(p for paths in c.values() for p in paths) for split, c in splits.items()} == {
        "train": ["a/2.jpg", "a/3.jpg", "ü/0.jpg", "ü/2.jpg"],
        "val": ["a/1.jpg", "ü/1.jpg"],
        "test": ["a/0.jpg", "ü/3.jpg"],
    }
    large = sampled_0_5(folder(many=1000, some=400, few=98, two=2), BOTH, 0)
    assert [sum(map(len, large[split].values())) for split in ("train", "val", "test")] == [800, 200, 500]
    assert len(large["train"]["two"]) == 1
