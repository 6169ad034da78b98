"""Inputs of the trained part of a network, for a set of images.

There are three ways, and the first that fits is taken: frozen features computed once (if nothing is augmented and they
fit in memory), pixels kept on the device, or pixels read from their memory map batch by batch. All three give the same
numbers; the trainer does not know which one is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from mlae_lab.core import memory
from mlae_lab.data.augment import augmented, for_evaluation, for_training
from mlae_lab.data.pixels import Three, channels_first, standardised
from mlae_lab.data.preprocessing import preprocessing
from mlae_lab.data.splits import LabelledImages
from mlae_lab.model.frozen_prefix import Part
from mlae_lab.training.feature_cache import FeatureCache
from mlae_lab.training.objective import Mix

FEATURES_KEPT = 2 * 2**30  # bytes of features kept: VTAB's 1,000 images of ViT-B/16 take 0.6 GB
PIXELS_KEPT = 4 * 2**30  # bytes of stored pixels kept on the device
IMAGES_AT_ONCE = memory.IMAGES_AT_ONCE


class Inputs:
    """The images of one split, ready for the network.

    Args:
        part: The stored images.
        before: The frozen part of the network in front of the first expert.
        device: Where the inputs are wanted.
        size: Image size of the backbone's input, in pixels.
        normalisation: Of the backbone's input.
        name: A protocol of `data.preprocessing`.
        generator: Samples the crops of a training split; None for a split that is only evaluated.
        augmentation: Of a training split, a name of `core.config.AUGMENTATIONS`.
        features_kept: Bytes of frozen features that may be kept.
        pixels_kept: Bytes of stored pixels that may be kept on the device.
        on_chunk: Called after every piece of work in the constructor; it may raise.
        at_once: How many images pass through the network at once, as memory allows (`core.memory`).
        cache: Of frozen features on disk; None: they are computed.
    """

    def __init__(
        self,
        part: LabelledImages,
        before: Part,
        device: torch.device,
        size: int,
        normalisation: str | tuple[Three, Three] = "half",
        name: str = "vtab",
        generator: torch.Generator | None = None,
        augmentation: str = "off",
        features_kept: int = FEATURES_KEPT,
        pixels_kept: int = PIXELS_KEPT,
        on_chunk: Callable[[], None] = lambda: None,
        at_once: int = IMAGES_AT_ONCE,
        cache: FeatureCache | None = None,
    ) -> None:
        self.labels = torch.from_numpy(part.labels).to(device)
        self.part, self.before, self.device = part, before, device
        self.size, self.normalisation, self.name = size, normalisation, name
        self.at_once = at_once
        self.augmentation = augmentation
        self.generator = generator if preprocessing(name).training != "none" or augmentation != "off" else None
        self.pixels: torch.Tensor | None = None
        self.features: torch.Tensor | None = None
        if self.generator is None and len(part) * self._feature_bytes() <= features_kept:
            self.features = self._frozen(on_chunk, cache)
        elif part.images.nbytes <= pixels_kept:
            self.pixels = self._all(channels_first, on_chunk).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def _frozen(self, on_chunk: Callable[[], None], cache: FeatureCache | None) -> torch.Tensor:
        features = cache.load(self.part.images) if cache else None
        if features is None:
            features = self._all(self._through, on_chunk)
            if cache:
                cache.save(self.part.images, features)
        return features

    def _all(self, function: Callable[..., torch.Tensor], on_chunk: Callable[[], None]) -> torch.Tensor:
        chunks = []
        with torch.no_grad():
            for at in self._starts():
                chunks.append(function(self.part.images[at : at + self.at_once]))
                on_chunk()
            chunks = chunks or [function(self.part.images[:0])]
        return torch.cat(chunks)

    def take(self, chosen: torch.Tensor, mix: Mix | None = None) -> torch.Tensor:
        """Inputs of the trained part for the chosen images, (k, ...) on the device.

        Args:
            chosen: (k,) indices.
            mix: Of their pixels; only without frozen features (`features_kept` 0).
        """
        if self.features is not None:
            assert mix is None
            return self.features[chosen]
        if self.pixels is not None:
            return self._seen(self.pixels[chosen], mix)
        return self._through(self.part.images[chosen.cpu().numpy()], mix)

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images in order, `at_once` at a time, as (inputs, labels)."""
        for at in self._starts():
            chosen = torch.arange(at, min(at + self.at_once, len(self)), device=self.device)
            yield self.take(chosen), self.labels[chosen]

    def as_tested(self, chosen: torch.Tensor) -> torch.Tensor:
        """Like `take`, but preprocessed as in evaluation, without random crops."""
        if self.generator is None:
            return self.take(chosen)
        return self.before(self.normalised(self.part.images[chosen.cpu().numpy()]))

    def shown(self, images: np.ndarray) -> torch.Tensor:
        """Stored images preprocessed as in evaluation: (k, h, w[, 3]) uint8 to (k, 1 or 3, size, size), 0 to 255."""
        return for_evaluation(channels_first(images).to(self.device), self.name, self.size)

    @torch.no_grad()
    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """Inputs of the whole network in evaluation, before its frozen part: (k, 3, size, size)."""
        return standardised(self.shown(images), self.normalisation)

    def _starts(self) -> range:
        return range(0, len(self.part), self.at_once)

    def _feature_bytes(self) -> int:
        with torch.no_grad():
            features = self._through(self.part.images[:1])
        return features.numel() * features.element_size()

    def _through(self, images: np.ndarray, mix: Mix | None = None) -> torch.Tensor:
        return self._seen(channels_first(images).to(self.device), mix)

    @torch.no_grad()
    def _seen(self, pixels: torch.Tensor, mix: Mix | None = None) -> torch.Tensor:
        """Stored pixels (k, c, h, w) uint8 through augmentation, resize, mixup, normalisation and the frozen part."""
        if self.generator is not None:
            pixels = augmented(pixels, self.augmentation, self.generator)
            pixels = for_training(pixels, self.name, self.size, self.generator)
        else:
            pixels = for_evaluation(pixels, self.name, self.size)
        standard = standardised(pixels, self.normalisation)
        return self.before(standard if mix is None else mix.of(standard))
