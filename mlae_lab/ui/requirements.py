"""The requirements of a run: images, and the weights of its backbone."""

from __future__ import annotations

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.data import tasks
from mlae_lab.locations import weights_file


def missing(config: RunConfig) -> str | None:
    """One sentence about what is missing, or None if the run can start."""
    task, backbone = catalog.task(config.task), catalog.backbone(config.backbone)
    if not tasks.ready(task):
        return f"{task.title} has no images on this machine yet."
    if backbone.needs_file and not config.weights and not weights_file(backbone.name).exists():
        return (
            f"The weights of {backbone.title} are not on this machine: fetch them, put timm's model.safetensors at "
            f"{weights_file(backbone.name)}, or start the run with --weights on the command line."
        )
    return None
