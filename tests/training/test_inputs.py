"""Cached features, cached pixels and the memory map give the same inputs of the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mlae_lab.data.splits import LabelledImages
from mlae_lab.training.inputs import Inputs

CPU = torch.device("cpu")


def before(images: torch.Tensor) -> torch.Tensor:
    """A frozen first part of a network: means over 8 x 8 patches, (n, patches, 3)."""
    return torch.nn.functional.avg_pool2d(images, 8).flatten(2).transpose(1, 2)


@pytest.fixture(params=["array", "memory map", "grey"])
def part(request: pytest.FixtureRequest, tmp_path: Path) -> LabelledImages:
    rng = np.random.default_rng(0)
    shape = (300, 40, 40) if request.param == "grey" else (300, 40, 40, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    if request.param == "memory map":
        np.save(tmp_path / "pixels.npy", images)
        images = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    return LabelledImages(images, rng.integers(0, 5, 300))


def test_cached_features_cached_pixels_and_the_map_give_the_same_numbers(part: LabelledImages) -> None:
    features = Inputs(part, before, CPU, 32)
    pixels = Inputs(part, before, CPU, 32, features_kept=0)
    mapped = Inputs(part, before, CPU, 32, features_kept=0, pixels_kept=0)
    assert features.features is not None
    assert pixels.features is None
    assert pixels.pixels is not None
    assert mapped.features is None
    assert mapped.pixels is None
    indices = torch.tensor([299, 0, 17, 17])
    assert features.take(indices).shape == (4, 16, 3)
    for other in (pixels, mapped):
        torch.testing.assert_close(other.take(indices), features.take(indices), rtol=0, atol=1e-6)
    columns = [torch.cat(column) for column in zip(*mapped.chunks(), strict=True)]
    torch.testing.assert_close(columns[0], features.features, rtol=0, atol=1e-6)
    assert columns[1].tolist() == part.labels.tolist()
    assert len(mapped) == 300


def test_crops_differ_each_time_and_are_reproduced_by_the_seed(part: LabelledImages) -> None:
    def augmented(seed: int) -> Inputs:
        return Inputs(part, before, CPU, 32, name="fgvc-crop", generator=torch.Generator().manual_seed(seed))

    inputs, same_seed, other_seed = augmented(0), augmented(0), augmented(1)
    indices = torch.arange(8)
    assert inputs.features is None, "augmented images have no cached features"
    first = inputs.take(indices)
    assert torch.equal(first, same_seed.take(indices))
    assert not torch.equal(first, other_seed.take(indices))
    assert not torch.equal(first, inputs.take(indices))


def test_an_evaluation_split_is_cropped_to_the_centre_and_cached(part: LabelledImages) -> None:
    evaluated = Inputs(part, before, CPU, 32, name="fgvc-crop")
    centre = LabelledImages(part.images[:, 4:36, 4:36], part.labels)
    torch.testing.assert_close(evaluated.features, Inputs(centre, before, CPU, 32).features, rtol=0, atol=1e-6)


def test_a_generator_changes_nothing_without_augmentation(part: LabelledImages) -> None:
    trained = Inputs(part, before, CPU, 32, name="vtab", generator=torch.Generator().manual_seed(0))
    assert torch.equal(trained.features, Inputs(part, before, CPU, 32).features)


def test_no_more_images_at_once_than_the_memory_allows(part: LabelledImages) -> None:
    seen = []

    def counting(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return before(images)

    inputs = Inputs(part, counting, CPU, 32, at_once=70)
    mapped = Inputs(part, counting, CPU, 32, features_kept=0, pixels_kept=0, at_once=70)
    assert [len(labels) for _, labels in mapped.chunks()] == [70, 70, 70, 70, 20]
    assert max(seen) == 70
    assert torch.equal(torch.cat([entering for entering, _ in mapped.chunks()]), inputs.features)
