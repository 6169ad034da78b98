"""Images and labels of a task, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelledImages:
    """Images with their labels.

    Attributes:
        images: (n, height, width) grey or (n, height, width, 3), uint8; may be a memory map.
        labels: (n,) int64.
        content: (n,) uint64, the content hash of each image's file; None for bundled images.
    """

    images: np.ndarray
    labels: np.ndarray
    content: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """The images of a task by split: 800, 200 and the rest in VTAB's protocol; class names in label order."""

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]

    def protocol(self, name: str) -> tuple[LabelledImages, LabelledImages]:
        """(training images, evaluation images): "val" is train -> val, "test" is train + val -> test."""
        if name == "val":
            return self.train, self.val
        train_and_val = LabelledImages(
            np.concatenate([self.train.images, self.val.images]), np.concatenate([self.train.labels, self.val.labels])
        )
        return train_and_val, self.test
