"""Crops and flips compared with torchvision's, and their random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import CenterCrop, InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as tv

from mlae_lab.data.augment import (
    augmented,
    centre_crop,
    for_evaluation,
    for_training,
    horizontal_flip,
    random_boxes,
    random_crop,
    random_resized_crop,
    resized_crop,
)
from mlae_lab.data.pixels import resized
from mlae_lab.data.preprocessing import PREPROCESSING, preprocessing, with_margin

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int = 6, height: int = 40, width: int = 40, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, height, width), dtype=np.uint8))


def places(n: int, height: int, width: int) -> torch.Tensor:
    """Images whose pixels encode their position: channel 0 the image, 1 the row, 2 the column."""
    grid = torch.meshgrid(torch.arange(n), torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack(grid, dim=1).to(torch.uint8)


# ---------------------------------------------------------------- selecting pixels


@pytest.mark.parametrize("size", [(40, 40), (41, 40), (37, 52), (24, 24)])
@pytest.mark.parametrize("crop", [24, 23])
def test_the_centre_crop_is_torchvisions(size: tuple[int, int], crop: int) -> None:
    batch = noise(2, *size)
    assert torch.equal(centre_crop(batch, crop), CenterCrop(crop)(batch))


@pytest.mark.parametrize("device", DEVICES)
def test_random_crops_have_different_offsets_and_intact_pixels(device: str) -> None:
    batch = places(64, 30, 26).to(device)
    result = random_crop(batch, 20, seeded()).cpu()
    assert result.dtype == torch.uint8
    assert result.shape == (64, 3, 20, 20)
    assert torch.equal(result[:, 0, 0, 0], torch.arange(64, dtype=torch.uint8))  # each from its own image
    top, left = result[:, 1, 0, 0].long(), result[:, 2, 0, 0].long()
    for number in range(64):
        expected = tv.crop(batch[number].cpu(), int(top[number]), int(left[number]), 20, 20)
        assert torch.equal(result[number], expected)
    assert len({*zip(top.tolist(), left.tolist(), strict=True)}) > 30


def test_random_crop_offsets_are_uniform() -> None:
    result = random_crop(places(4000, 6, 5), 4, seeded())
    share = torch.bincount(result[:, 1, 0, 0].long() * 2 + result[:, 2, 0, 0].long()) / 4000
    assert share.shape == (6,)
    assert float((share - 1 / 6).abs().max()) < 0.03


def test_a_crop_of_the_whole_image_is_the_image_and_a_larger_one_is_refused() -> None:
    batch = noise(3, 9, 9)
    assert torch.equal(random_crop(batch, 9, seeded()), batch)
    for crop in (lambda: random_crop(batch, 10, seeded()), lambda: centre_crop(batch, 10)):
        with pytest.raises(ValueError, match="images of 9 x 9 are too small for a crop of size 10: store them larger"):
            crop()


@pytest.mark.parametrize("device", DEVICES)
def test_half_of_the_images_are_mirrored(device: str) -> None:
    batch = noise(400, 3, 4).to(device)
    result = horizontal_flip(batch, seeded())
    turned = (result == tv.hflip(batch)).flatten(1).all(1)
    assert bool((turned | (result == batch).flatten(1).all(1)).all())
    assert 160 < int(turned.sum()) < 240
    assert torch.equal(horizontal_flip(batch, seeded(), probability=0.0), batch)
    assert torch.equal(horizontal_flip(batch, seeded(), probability=1.0), batch.flip(-1))


# ---------------------------------------------------------------- resizing


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_resized_crop_is_torchvisions(resample: str, device: str) -> None:
    """Shrunk, enlarged, stretched and at the edges: within 0.01 of 255 of torchvision's antialiased resize."""
    batch = noise(6, 50, 44)
    boxes = torch.tensor(
        [[0, 0, 50, 44], [3, 5, 24, 24], [10, 2, 40, 12], [49, 43, 1, 1], [0, 30, 7, 14], [9, 0, 33, 41]]
    )
    result = resized_crop(batch.to(device), boxes, 24, resample).cpu()
    assert result.dtype == torch.float32
    assert result.shape == (6, 3, 24, 24)
    for number, box in enumerate(boxes.tolist()):
        expected = tv.resized_crop(
            batch[number].float(), *box, [24, 24], InterpolationMode(resample), antialias=True
        ).clamp(0, 255)
        torch.testing.assert_close(result[number], expected, rtol=0, atol=0.01)


def test_a_crop_of_everything_is_the_plain_resize() -> None:
    batch = noise(3, 40, 40)
    whole = torch.tensor([[0, 0, 40, 40]]).expand(3, 4)
    torch.testing.assert_close(resized_crop(batch, whole, 24), resized(batch, 24), rtol=0, atol=0.01)
    torch.testing.assert_close(resized_crop(batch, whole, 40), batch.float(), rtol=0, atol=0.001)


def test_float_and_uint8_images_give_the_same_and_autocast_changes_nothing() -> None:
    batch = noise()
    expected = random_resized_crop(batch, 24, seeded())
    assert torch.equal(random_resized_crop(batch.float(), 24, seeded()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(random_resized_crop(batch, 24, seeded()), expected)
    assert float(expected.min()) >= 0
    assert float(expected.max()) <= 255
    assert not expected.requires_grad


# ---------------------------------------------------------------- random numbers


@pytest.mark.parametrize(("height", "width"), [(256, 256), (60, 200), (200, 60), (9, 9)])
def test_boxes_lie_inside_with_the_requested_area_and_aspect(height: int, width: int) -> None:
    top, left, tall, wide = random_boxes(2000, height, width, seeded()).unbind(1)
    assert int(top.min()) >= 0
    assert int(left.min()) >= 0
    assert int(tall.min()) > 0
    assert int(wide.min()) > 0
    assert int((top + tall).max()) <= height
    assert int((left + wide).max()) <= width
    # half a pixel of rounding each way
    assert bool(((wide + 0.5) / (tall - 0.5) >= 3 / 4).all())
    assert bool(((wide - 0.5) / (tall + 0.5) <= 4 / 3).all())
    assert float(((tall + 0.5) * (wide + 0.5)).min()) >= 0.08 * height * width


@pytest.mark.parametrize(("height", "width"), [(256, 256), (100, 180)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    """Means of area, aspect ratio and position over 3,000 samples of each, within five standard errors."""
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    expected_means = torch.tensor(
        [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)], dtype=torch.float64
    )
    means = random_boxes(3000, height, width, seeded()).double()

    def measures(boxes: torch.Tensor) -> torch.Tensor:
        top, left, tall, wide = boxes.unbind(1)
        return torch.stack([top, left, tall * wide, (wide / tall).log()])

    a, b = measures(means), measures(expected_means)
    error = ((a.var(1) + b.var(1)) / 3000).sqrt()
    assert bool(((a.mean(1) - b.mean(1)).abs() < 5 * error).all())


@pytest.mark.parametrize(("height", "width"), [(4, 400), (400, 4), (30, 30)])
def test_central_box_is_used_if_no_sample_fits_as_in_torchvision(height: int, width: int) -> None:
    ratio = (3 / 4, 4 / 3) if height != width else (20.0, 30.0)
    torch.manual_seed(0)
    expected_means = RandomResizedCrop.get_params(torch.empty(3, height, width), [1.0, 1.0], list(ratio))
    means = random_boxes(3, height, width, seeded(), scale=(1.0, 1.0), ratio=ratio)
    assert means.tolist() == [list(expected_means)] * 3


def test_crops_follow_from_the_seed() -> None:
    batch = noise(8, 40, 40)
    for name in ("fgvc-crop", "fgvc-rrc"):
        generator = seeded(5)
        first, second = (for_training(batch, name, 35, generator) for _ in range(2))
        assert torch.equal(for_training(batch, name, 35, seeded(5)), first)
        assert not torch.equal(first, second)
        assert not torch.equal(for_training(batch, name, 35, seeded(6)), first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_sees_the_same_crops() -> None:
    batch = noise(8, 40, 40)
    for name in PREPROCESSING:
        expected = for_training(batch, name, 35, seeded())
        result = for_training(batch.cuda(), name, 35, seeded())
        torch.testing.assert_close(result.cpu(), expected, rtol=0, atol=0.01)
        with pytest.raises(ValueError, match="the generator is on cuda"):
            random_crop(batch, 9, torch.Generator("cuda"))


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.5, 0.2), (0.5, 1.1)])
def test_impossible_settings_are_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="choose two ascending numbers"):
        random_boxes(1, 9, 9, seeded(), scale=scale)
    with pytest.raises(ValueError, match="choose two ascending numbers"):
        random_boxes(1, 9, 9, seeded(), ratio=(0.0, scale[1]))
    with pytest.raises(ValueError, match="choose bicubic or bilinear"):
        resized_crop(noise(1), torch.tensor([[0, 0, 4, 4]]), 4, "nearest")


# ---------------------------------------------------------------- protocols


def test_what_the_protocols_store() -> None:
    stored = {name: protocol.rule() for name, protocol in PREPROCESSING.items()}
    assert {rule.kind for rule in stored.values()} == {"square"}
    assert {name: rule.size for name, rule in stored.items()} == {"vtab": 224, "fgvc-crop": 256, "fgvc-rrc": 256}
    assert [with_margin(size) for size in (48, 224, 384, 7, 1)] == [55, 256, 439, 8, 1]
    for name, protocol in PREPROCESSING.items():
        assert protocol.name == name
        assert "\n" not in protocol.badge()
        assert str(stored[name].size) in protocol.badge()
        assert str(protocol.rule(48).size) in protocol.badge(48)
    assert PREPROCESSING["fgvc-crop"].badge() == (
        "resized to 256 × 256 (bicubic, aspect ignored), random 224 crop + flip, test: centre 224"
    )
    with pytest.raises(ValueError, match="choose one of vtab, fgvc-crop, fgvc-rrc"):
        preprocessing("vtab-1k")


@pytest.mark.parametrize("name", list(PREPROCESSING))
@pytest.mark.parametrize("size", [1, 7, 48])
def test_every_protocol_gives_the_backbones_image_size(name: str, size: int) -> None:
    stored = preprocessing(name).rule(size).size
    batch = noise(5, stored, stored)
    train, test = for_training(batch, name, size, seeded()), for_evaluation(batch, name, size)
    assert train.shape == test.shape == (5, 3, size, size)
    if name == "vtab":
        assert torch.equal(train, batch.float())
        assert torch.equal(test, batch.float())
    else:
        assert torch.equal(test, centre_crop(batch, size))


def test_empty_batches() -> None:
    empty = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    for name in PREPROCESSING:
        assert for_training(empty, name, 7, seeded()).shape == (0, 3, 7, 7)


# ---------------------------------------------------------------- augmentation


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["flip", "crop", "colour", "randaugment"])
def test_an_augmentation_keeps_shape_and_type_and_repeats_with_its_generator(name: str, channels: int) -> None:
    batch = torch.randint(256, (6, channels, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    state = torch.get_rng_state()
    changed, again = (augmented(batch, name, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state), "torch's own generator is left as it was"
    assert (changed.shape, changed.dtype) == (batch.shape, torch.uint8)
    assert torch.equal(changed, again)
    assert not torch.equal(changed, batch)
    assert not torch.equal(changed, augmented(batch, name, torch.Generator().manual_seed(6)))
    assert augmented(batch, "off", torch.Generator()) is batch


def test_a_shift_reflects_the_border_and_moves_at_most_an_eighth() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).expand(200, 1, 32, 32)
    shifted = augmented(ramp, "crop", torch.Generator().manual_seed(0))
    for row in shifted[:, 0, 0].tolist():
        ascending = row if row[10] < row[11] else row[::-1]
        by = ascending[16] - 16
        assert abs(by) <= 4
        assert ascending == [min(abs(x), 62 - abs(x)) for x in range(by, 32 + by)]
