"""About the run that is queried: its network, its images and its accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlae_lab.core.progress import ProgressCallback
from mlae_lab.training.evaluation import evaluate
from mlae_lab.training.loaded_run import LoadedRun


def about(loaded: LoadedRun, arguments: Mapping[str, Any], on_progress: ProgressCallback) -> dict:
    """Device, precision, classes, number of images, top-1 accuracy in percent and loss, with all experts on.

    Accuracy and loss are those that the run ended with, if it was evaluated on this kind of device. No arguments.
    """
    setup = loaded.setup
    result = evaluate(setup)
    return {
        "device": str(setup.device),
        "precision": str(setup.precision).removeprefix("torch."),
        "classes": list(setup.classes),
        "train_images": len(setup.train),
        "images": len(setup.evaluation),
        "accuracy": result.accuracy,
        "loss": result.loss,
    }


QUERIES = {"about": about}
