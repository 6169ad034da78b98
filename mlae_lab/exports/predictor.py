"""A trained run for use from Python: `mlae_lab.load`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from mlae_lab.errors import LabError
from mlae_lab.locations import default_store
from mlae_lab.runs import paths
from mlae_lab.runs.liveness import derived
from mlae_lab.runs.run_location import checked_weights, read_location
from mlae_lab.runs.store import RunStore
from mlae_lab.training.loaded_network import LoadedNetwork, load_network

AT_ONCE = 32  # images in one forward pass


class LoadError(LabError):
    """A run that cannot be loaded; its text says what would work."""


@dataclass(frozen=True)
class Prediction:
    """What a network says about an image.

    Attributes:
        label: The most probable class.
        probability: Its probability, 0 to 1.
        top: The most probable classes with their probabilities, the best first.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Predictor:
    """A trained network that classifies images.

    Attributes:
        network: The torch module in eval mode on the CPU; its input is `prepare`'s output.
        classes: Names of the classes in label order.
        run: Its id.
    """

    def __init__(self, loaded: LoadedNetwork, run: str) -> None:
        self._loaded, self.run = loaded, run
        self.network, self.classes = loaded.model, loaded.classes

    def prepare(self, images: Sequence[Any]) -> Any:
        """Images as the network's input, a tensor (n, 3, size, size). Raises DataError for one that cannot be read."""
        return self._loaded.inputs([self._loaded.steps.stored(image) for image in images])

    def probabilities(self, images: Sequence[Any]) -> np.ndarray:
        """The probability of each class for each image, (n, classes)."""
        parts = [
            self._loaded.logits(self.prepare(images[at : at + AT_ONCE])).softmax(1).numpy()
            for at in range(0, len(images), AT_ONCE)
        ]
        return np.concatenate([np.zeros((0, len(self.classes)), np.float32), *parts])

    @overload
    def predict(self, images: list[Any] | tuple[Any, ...], top: int = 5) -> list[Prediction]: ...
    @overload
    def predict(self, images: str | Path | Image.Image | np.ndarray, top: int = 5) -> Prediction: ...
    def predict(self, images: Any, top: int = 5) -> Prediction | list[Prediction]:
        """Classify one image or several, preprocessed as in the run's evaluation.

        Args:
            images: A path, a PIL image or an array (height, width[, 3]) of uint8; or a list of such.
            top: How many classes to return for each.

        Returns:
            A Prediction; for a list a list of them.

        Raises:
            DataError: An image cannot be read.
        """
        several = isinstance(images, list | tuple)
        predictions = [self._described(row, top) for row in self.probabilities(images if several else [images])]
        return predictions if several else predictions[0]

    def _described(self, row: np.ndarray, top: int) -> Prediction:
        order = np.argsort(-row, kind="stable")[: max(1, top)]
        best = tuple((self.classes[i], float(row[i])) for i in order)
        return Prediction(*best[0], best)

    def __repr__(self) -> str:
        config = self._loaded.config
        return f"<MLAE Lab run {self.run}: {config.what} on {config.backbone}, {len(self.classes)} classes>"


def load(run: str, store: str | Path | None = None, weights: str | Path | None = None) -> Predictor:
    """As `mlae_lab.load`."""
    folder = Path(store).expanduser() if store is not None else default_store()
    if not paths.database(folder).is_file():
        raise LoadError(f"there is no store in {folder}: name the folder of the runs with store=")
    opened = RunStore(folder)
    stored = derived(opened, opened.run(run))
    files = opened.paths(stored.id)
    if not files.adapter.is_file():
        raise LoadError(f"run {stored.id} has no adapter: train it until its first evaluation")
    if stored.config.unavailable:
        raise LoadError(f"run {stored.id} cannot be loaded, {stored.config.unavailable}")
    named = checked_weights(str(weights)) if weights is not None else ""
    file = Path(named) if named else read_location(files).weights_file
    return Predictor(load_network(stored.config, files.adapter, stored.id, file), stored.id)
