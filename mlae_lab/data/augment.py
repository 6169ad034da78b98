"""Crops and flips of whole batches on the batch's device, and the named protocols that use them.

Random numbers are sampled on the CPU for all images at once, so one generator gives the same crops on every device.
Resizing is antialiased as in PIL and torchvision: a crop is two matrix products with the filter's weights
(`grid_sample` would skip pixels when it shrinks), 0.2 billion operations for an image of 256 x 256, one percent of a
forward pass of ViT-B.
"""

from __future__ import annotations

import math

import torch
from torchvision.transforms import v2

from mlae_lab.data.pixels import resized
from mlae_lab.data.preprocessing import preprocessing

ATTEMPTS = 10  # samples of area and aspect ratio before a crop falls back to the centre, as in torchvision


def for_training(batch: torch.Tensor, name: str, size: int, generator: torch.Generator) -> torch.Tensor:
    """Augment stored images for a training step under a protocol of `PREPROCESSING`.

    Args:
        batch: (n, c, h, w) of 0..255, stored by the protocol's rule.
        name: of the protocol.
        size: image size that the backbone reads.
        generator: a CPU generator.

    Returns:
        (n, c, size, size), still 0..255.

    Raises:
        ValueError: the protocol is unknown, the images are too small to crop or the generator is not on the CPU.
    """
    training = preprocessing(name).training
    if training == "none":
        return resized(batch, size)
    cropped = random_crop(batch, size, generator) if training == "crop" else random_resized_crop(batch, size, generator)
    return horizontal_flip(cropped, generator)


def for_evaluation(batch: torch.Tensor, name: str, size: int) -> torch.Tensor:
    """Stored images for evaluation: resized to the backbone's image size, or the centre. Shapes as `for_training`."""
    return centre_crop(batch, size) if preprocessing(name).margin else resized(batch, size)


def augmented(batch: torch.Tensor, name: str, generator: torch.Generator) -> torch.Tensor:
    """Change stored images at random, each differently, before a protocol of `PREPROCESSING` crops and resizes them.

    Args:
        batch: (n, c, h, w) uint8.
        name: One of `core.config.AUGMENTATIONS`: "flip" left to right with probability 1/2; "crop" also shifts by up to
            1/8 of each side, the border reflected; "colour" also changes brightness, contrast and saturation by up to
            40 %; "randaugment" has two operations of RandAugment at magnitude 9 instead of colours (Cubuk et al. 2020).
        generator: A CPU generator.

    Returns:
        A batch of the same shape and type.
    """
    if name == "off":
        return batch
    batch = horizontal_flip(batch, generator)
    if name == "flip":
        return batch
    batch = _shifted(batch, generator)
    if name == "crop":
        return batch
    change = v2.ColorJitter(0.4, 0.4, 0.4) if name == "colour" else v2.RandAugment()
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):  # torchvision samples from torch's own generator of the CPU
        torch.default_generator.manual_seed(seed)
        return torch.stack([change(image) for image in batch])


def _shifted(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift each image by up to 1/8 of each side, the border reflected. (n, c, h, w), any dtype; the shape stays."""
    height, width = batch.shape[-2:]
    tall, wide = height // 8, width // 8
    sampled = _uniform((2, len(batch)), generator)
    rows = _reflected(torch.arange(height) + _below(sampled[0], 2 * tall + 1)[:, None] - tall, height)
    columns = _reflected(torch.arange(width) + _below(sampled[1], 2 * wide + 1)[:, None] - wide, width)
    image = torch.arange(len(batch))[:, None, None]
    index = tuple(part.to(batch.device) for part in (image, rows[:, :, None], columns[:, None, :]))
    return batch.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2)


def _reflected(places: torch.Tensor, size: int) -> torch.Tensor:
    """Places outside 0 to size - 1, mirrored at the border pixel."""
    return (size - 1 - (size - 1 - places.abs()).abs()).clamp(0)


# ---------------------------------------------------------------- crops that only select pixels


def centre_crop(batch: torch.Tensor, size: int) -> torch.Tensor:
    """(n, c, h, w) to (n, c, size, size), any dtype. Raises ValueError if the images are smaller."""
    height, width = _at_least(batch, size)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return batch[..., top : top + size, left : left + size]


def random_crop(batch: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Crop each image at its own uniformly sampled offset. (n, c, h, w) to (n, c, size, size), any dtype.

    Raises ValueError if the images are smaller.
    """
    height, width = _at_least(batch, size)
    sampled = _uniform((2, len(batch)), generator)
    top, left = _below(sampled[0], height - size + 1), _below(sampled[1], width - size + 1)
    window = torch.arange(size)
    image = torch.arange(len(batch))[:, None, None]
    rows, columns = (top[:, None] + window)[:, :, None], (left[:, None] + window)[:, None, :]
    index = tuple(part.to(batch.device) for part in (image, rows, columns))
    return batch.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2)


def horizontal_flip(batch: torch.Tensor, generator: torch.Generator, probability: float = 0.5) -> torch.Tensor:
    """Mirror each image left to right with this probability. (n, c, h, w), any dtype; the shape stays."""
    flipped = _uniform((len(batch),), generator) < probability
    return torch.where(flipped.to(batch.device)[:, None, None, None], batch.flip(-1), batch)


# ---------------------------------------------------------------- crops that resize


def random_resized_crop(
    batch: torch.Tensor,
    size: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    resample: str = "bicubic",
) -> torch.Tensor:
    """A crop of random area and aspect ratio from each image, resized to size x size.

    Args:
        batch: (n, c, h, w) of 0..255, uint8 or float.
        size: of the result.
        generator: a CPU generator.
        scale: range of the share of the image's area, uniform.
        ratio: range of width / height, uniform in the logarithm.
        resample: "bicubic" or "bilinear".

    Returns:
        (n, c, size, size) float32 of 0..255.
    """
    height, width = batch.shape[-2:]
    return resized_crop(batch, random_boxes(len(batch), height, width, generator, scale, ratio), size, resample)


def random_boxes(
    images: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> torch.Tensor:
    """Sample crops as torchvision's RandomResizedCrop does: (n, 4) int64 of top, left, height, width, on the CPU.

    Args and ranges as in `random_resized_crop`; `height` and `width` are those of the images.

    Raises:
        ValueError: a share is outside (0, 1], or the ratios are not positive and ascending.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale is {scale}: choose two ascending numbers above 0 and up to 1")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio is {ratio}: choose two ascending numbers above 0")
    sampled = _uniform((images, 2 * ATTEMPTS + 2), generator)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * sampled[:, :ATTEMPTS])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * sampled[:, ATTEMPTS : 2 * ATTEMPTS])
    heights, widths = (area / aspect).sqrt().round().long(), (area * aspect).sqrt().round().long()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = fits.int().argmax(1, keepdim=True)  # the first that fits, 0 if none does
    crop_height, crop_width = heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0]
    top = _below(sampled[:, -2], height - crop_height + 1)
    left = _below(sampled[:, -1], width - crop_width + 1)
    boxes = torch.stack([top, left, crop_height, crop_width], dim=1)
    return torch.where(fits.any(1, keepdim=True), boxes, _central_box(height, width, ratio))


def resized_crop(batch: torch.Tensor, boxes: torch.Tensor, size: int, resample: str = "bicubic") -> torch.Tensor:
    """Crop a box out of each image and resize it to size x size, antialiased.

    Args:
        batch: (n, c, h, w) of 0..255, uint8 or float.
        boxes: (n, 4) integers: top, left, height, width, inside the image.
        size: of the result.
        resample: "bicubic" or "bilinear".

    Returns:
        (n, c, size, size) float32, clipped to 0..255.
    """
    if resample not in _FILTERS:
        raise ValueError(f"resample is {resample!r}: choose {' or '.join(_FILTERS)}")
    height, width = batch.shape[-2:]
    top, left, tall, wide = boxes.to(batch.device).unbind(1)
    with torch.autocast(batch.device.type, enabled=False):  # bfloat16 has too few digits for values up to 255
        rows = _weights(top, tall, height, size, resample)[:, None]
        columns = _weights(left, wide, width, size, resample)[:, None]
        return (rows @ batch.float() @ columns.mT).clamp(0, 255)


def _weights(start: torch.Tensor, length: torch.Tensor, pixels: int, size: int, resample: str) -> torch.Tensor:
    """(n, size, pixels) float32: weight of each pixel of a line in each new pixel; 0 outside the crop."""
    shape, support = _FILTERS[resample]
    step = length.float()[:, None, None] / size
    width = step.clamp_min(1)  # antialiasing: when the image shrinks, the filter widens to cover all pixels
    centre = (torch.arange(size, device=start.device)[None, :, None] + 0.5) * step
    pixel = torch.arange(pixels, device=start.device)[None, None, :] - start[:, None, None] + 0.5
    inside = (pixel > 0) & (pixel < length[:, None, None])
    weights = shape(((pixel - centre) / width).abs().clamp_max(support)) * inside
    return weights / weights.sum(-1, keepdim=True)


def _bicubic(x: torch.Tensor) -> torch.Tensor:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far)


def _bilinear(x: torch.Tensor) -> torch.Tensor:
    return 1 - x


_FILTERS = {"bicubic": (_bicubic, 2.0), "bilinear": (_bilinear, 1.0)}  # of |x|, and where they reach 0


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> torch.Tensor:
    """The largest central crop with an allowed aspect ratio."""
    aspect = width / height
    tall, wide = height, width
    if aspect < ratio[0]:
        tall = min(height, round(width / ratio[0]))
    elif aspect > ratio[1]:
        wide = min(width, round(height * ratio[1]))
    return torch.tensor([[(height - tall) // 2, (width - wide) // 2, tall, wide]])


# ---------------------------------------------------------------- random numbers


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Numbers in [0, 1), on the CPU in double precision."""
    if generator.device.type != "cpu":
        raise ValueError(f"the generator is on {generator.device}: crops need a generator on the cpu")
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _below(uniform: torch.Tensor, ends: torch.Tensor | int) -> torch.Tensor:
    """Uniform numbers in [0, 1) to integers from 0 to ends - 1."""
    return (uniform * ends).long()


def _at_least(batch: torch.Tensor, size: int) -> tuple[int, int]:
    height, width = batch.shape[-2:]
    if min(height, width) < size:
        raise ValueError(f"images of {height} x {width} are too small for a crop of size {size}: store them larger")
    return height, width
