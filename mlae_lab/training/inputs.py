"""What enters the part of a network that trains, for a set of images.

Three ways, the first that fits: frozen features kept from one pass (nothing is augmented and they fit in
memory), pixels kept on the device, pixels read from their memory map batch by batch. All three give the
same numbers; the trainer does not know which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from mlae_lab.data.augment import for_evaluation, for_training
from mlae_lab.data.pixels import Three, channels_first, standardised
from mlae_lab.data.preprocessing import preprocessing
from mlae_lab.data.splits import LabelledImages
from mlae_lab.model.frozen_prefix import Part

FEATURES_KEPT = 2 * 2**30  # bytes of features kept: VTAB's 1,000 images of ViT-B/16 take 0.6 GB
PIXELS_KEPT = 4 * 2**30  # bytes of stored pixels kept on the device
CHUNK = 256


class Inputs:
    """The images of one split on their way into a network.

    part: stored images. before: the frozen part in front of the first expert. side, normalisation: of the
    backbone's input. name: a protocol of `PREPROCESSING`. generator: draws the crops of a training split;
    None for a split that is only measured. on_chunk: called after every piece of work here; it may raise.
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
        features_kept: int = FEATURES_KEPT,
        pixels_kept: int = PIXELS_KEPT,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        self.labels = torch.from_numpy(part.labels).to(device)
        self.part, self.before, self.device = part, before, device
        self.size, self.normalisation, self.name = size, normalisation, name
        self.generator = generator if preprocessing(name).training != "none" else None
        self.pixels: torch.Tensor | None = None
        self.features: torch.Tensor | None = None
        if self.generator is None and len(part) * self._feature_bytes() <= features_kept:
            self.features = self._all(self._through, on_chunk)
        elif part.images.nbytes <= pixels_kept:
            self.pixels = self._all(channels_first, on_chunk).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def _all(self, made: Callable[..., torch.Tensor], on_chunk: Callable[[], None]) -> torch.Tensor:
        chunks = []
        with torch.no_grad():
            for at in self._starts():
                chunks.append(made(self.part.images[at : at + CHUNK]))
                on_chunk()
        return torch.cat(chunks)

    def take(self, chosen: torch.Tensor) -> torch.Tensor:
        """What enters the trained part for the chosen images, (k, ...) on the device. chosen: (k,) whole numbers."""
        if self.features is not None:
            return self.features[chosen]
        if self.pixels is not None:
            return self._seen(self.pixels[chosen])
        return self._through(self.part.images[chosen.cpu().numpy()])

    def chunks(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """All images in order, 256 at a time: (what enters, labels)."""
        for at in self._starts():
            chosen = torch.arange(at, min(at + CHUNK, len(self)), device=self.device)
            yield self.take(chosen), self.labels[chosen]

    def as_tested(self, chosen: torch.Tensor) -> torch.Tensor:
        """Like `take`, without the random crops of training: the same again each time."""
        if self.generator is None:
            return self.take(chosen)
        return self.before(self.normalised(self.part.images[chosen.cpu().numpy()]))

    def shown(self, images: np.ndarray) -> torch.Tensor:
        """Stored images as a test shows them to the network: (k, h, w[, 3]) uint8 to (k, 1 or 3, side, side) of 0..255."""
        return for_evaluation(channels_first(images).to(self.device), self.name, self.size)

    @torch.no_grad()
    def normalised(self, images: np.ndarray) -> torch.Tensor:
        """What the whole network reads of stored images in a test, in front of its frozen part: (k, 3, side, side)."""
        return standardised(self.shown(images), self.normalisation)

    def _starts(self) -> range:
        return range(0, len(self.part), CHUNK)

    def _feature_bytes(self) -> int:
        with torch.no_grad():
            one = self._through(self.part.images[:1])
        return one.numel() * one.element_size()

    def _through(self, images) -> torch.Tensor:
        return self._seen(channels_first(images).to(self.device))

    @torch.no_grad()
    def _seen(self, pixels: torch.Tensor) -> torch.Tensor:
        """Stored pixels (k, c, h, w) uint8 through crop, resize, normalisation and the frozen part."""
        if self.generator is not None:
            pixels = for_training(pixels, self.name, self.size, self.generator)
        else:
            pixels = for_evaluation(pixels, self.name, self.size)
        return self.before(standardised(pixels, self.normalisation))
