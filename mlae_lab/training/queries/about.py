"""What is being asked: the network, its images, and its accuracy as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlae_lab.training.evaluation import evaluate
from mlae_lab.training.loaded_run import LoadedRun, ProgressCallback


def about(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Device, precision, classes, number of images, and top-1 in percent and loss on all evaluation images with all
    experts on: the number that the run ended with, if it was measured on this kind of device. No arguments."""
    setup = loaded.setup
    found = evaluate(setup)
    return {
        "device": str(setup.device),
        "precision": str(setup.precision).removeprefix("torch."),
        "classes": list(setup.classes),
        "train_images": len(setup.train),
        "images": len(setup.evaluation),
        "accuracy": found.accuracy,
        "loss": found.loss,
    }


QUERIES = {"about": about}
