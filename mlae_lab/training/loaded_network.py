"""The network of a run without its images: backbone, method and trained tensors, for exports and use from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.data.augment import for_evaluation
from mlae_lab.data.bundled import load_bundled
from mlae_lab.data.input_steps import InputSteps
from mlae_lab.data.pixels import Three, channels_first, standardised
from mlae_lab.data.preprocessing import preprocessing
from mlae_lab.locations import data_folder
from mlae_lab.methods.adapter import Adapter, attach
from mlae_lab.model import backbones
from mlae_lab.model.adapter_file import AdapterError, InputDescription, load_adapter, read_adapter, require_method
from mlae_lab.model.weight_files import classifier
from mlae_lab.training.loaded_run import QueryError


@dataclass
class LoadedNetwork:
    """A trained network on the CPU, float32, in eval mode.

    Attributes:
        config: Of the run.
        model: The whole network.
        adapter: What the method put into it.
        head: The trained classifier.
        classes: Names of the classes in label order.
        steps: From an image to the input.
        weights: Fingerprint of the frozen weights.
        frozen: The network's tensors before the method, with a new head of zeros; empty unless they were wanted.
    """

    config: RunConfig
    model: nn.Module
    adapter: Adapter
    head: nn.Linear
    classes: tuple[str, ...]
    steps: InputSteps
    weights: str
    frozen: dict[str, torch.Tensor]

    def inputs(self, stored: Sequence[np.ndarray]) -> torch.Tensor:
        """Images of `InputSteps.stored` as the network's input, (n, 3, size, size)."""
        steps = self.steps
        pixels = for_evaluation(channels_first(np.stack(stored)), steps.name, steps.image_size)
        return standardised(pixels, (steps.mean, steps.deviation))

    @torch.no_grad()
    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, 3, size, size) to (n, classes)."""
        return self.model(inputs)


def load_network(
    config: RunConfig, adapter: Path, run_id: str = "", weights: Path | None = None, keep_frozen: bool = False
) -> LoadedNetwork:
    """Build a run's network and load its adapter; no image of the run is needed.

    Args:
        config: Of the run.
        adapter: Its adapter file.
        run_id: For error messages.
        weights: A file with its frozen weights, if they are not where the config says.
        keep_frozen: Whether to keep a copy of the network as it was before the method.

    Raises:
        AdapterError, QueryError: As `load_run` does.
        BackboneError: The weights do not fit.
        AttachError, InjectError: The method does not fit the network.
    """
    learned = read_adapter(adapter)
    require_method(learned, config.method, config.method_settings)
    file = weights or (Path(config.weights) if config.weights else None)
    if file and not file.exists():
        raise QueryError(
            f"the frozen weights of run {run_id} were read from {file}, which does not exist here: name the file with "
            "--weights"
        )
    model, _ = backbones.build_with_notes(
        config.backbone, learned.classes, config.seed, file, data_folder() / "weights"
    )
    fingerprint = backbones.fingerprint(model)  # of the weights as they are at the network's own size
    if learned.input.weights and learned.input.weights != fingerprint:
        raise AdapterError(
            f"the adapter was trained on frozen weights with fingerprint {learned.input.weights} and "
            f"{file or config.badge.weights} has {fingerprint}: name the original file with --weights"
        )
    classes, steps = _described(config, learned.input, learned.classes)
    backbones.set_image_size(model, steps.image_size)
    frozen = {name: value.clone() for name, value in model.state_dict().items()} if keep_frozen else {}
    trained = attach(model, config.tuning, config.seed)
    head = classifier(model)
    assert isinstance(head, nn.Linear)  # `build_with_notes` refuses any other
    load_adapter(learned, trained, head)
    try:
        trained.require_valid()
    except ValueError as error:
        raise AdapterError(f"the adapter is damaged: {error}") from None
    model.requires_grad_(False)
    trained.train(False)
    model.eval()
    return LoadedNetwork(config, model, trained, head, classes, steps, fingerprint, frozen)


def _described(config: RunConfig, expected: InputDescription, count: int) -> tuple[tuple[str, ...], InputSteps]:
    """Classes and steps; an adapter file of version 0.5 describes neither."""
    size = expected.image_size or config.network.image_size
    name = expected.preprocessing or config.prepared
    if len(expected.mean) == len(expected.deviation) == 3:
        mean, deviation = expected.mean, expected.deviation
    else:
        mean, deviation = config.mean_and_deviation
    task = catalog.task(config.task)
    classes, stored, grey = expected.class_names, preprocessing(name).rule(size).size, False
    if task.bundled:
        splits = load_bundled(task.name)
        classes, stored, grey = classes or splits.class_names, splits.test.images.shape[1], splits.test.images.ndim == 3
    steps = InputSteps(
        name, stored, size, grey, cast(Three, tuple(mean)), cast(Three, tuple(deviation)), expected.depth or None
    )
    return classes or tuple(f"class {number}" for number in range(count)), steps
