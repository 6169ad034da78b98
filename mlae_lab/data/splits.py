"""Images and labels of a task, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlae_lab.data.folds import Fold, is_evaluated


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

    def of(self, chosen: np.ndarray) -> LabelledImages:
        """Some of the images. chosen: (n,) bool."""
        content = None if self.content is None else self.content[chosen]
        return LabelledImages(self.images[chosen], self.labels[chosen], content)


@dataclass(frozen=True)
class Splits:
    """The images of a task by split: 800, 200 and the rest in VTAB's protocol; class names in label order."""

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]

    def protocol(self, name: str, fold: Fold | None = None) -> tuple[LabelledImages, LabelledImages]:
        """(training images, evaluation images): "val" is train -> val, "test" is train + val -> test.

        With a fold, train and val together without it -> the fold.
        """
        if name == "val" and fold is None:
            return self.train, self.val
        train_and_val = LabelledImages(
            np.concatenate([self.train.images, self.val.images]), np.concatenate([self.train.labels, self.val.labels])
        )
        return (train_and_val, self.test) if fold is None else divided(train_and_val, fold)


def divided(images: LabelledImages, fold: Fold) -> tuple[LabelledImages, LabelledImages]:
    """The images without those that a fold evaluates, and those."""
    evaluated = is_evaluated(images.labels, fold)
    return images.of(~evaluated), images.of(evaluated)
