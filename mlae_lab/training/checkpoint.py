"""A checkpoint: everything that determines how a training continues, taken between two of its steps.

It holds experts and head, the optimizer's moments, the state of every generator, the position in the epoch's order and
the sums that an evaluation reports. Restored on a CPU, the rest of the run gives the same numbers, bit for bit. The
file is safetensors with a JSON header, never pickle; it appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlae_lab.core import bounded_json
from mlae_lab.core.config import RunConfig
from mlae_lab.errors import LabError
from mlae_lab.files import replacing

FORMAT = 2


class CheckpointError(LabError):
    """A file that is not a complete checkpoint of this lab, or one that does not fit the run."""


@dataclass(frozen=True)
class TrainPosition:
    """Position in a training.

    Attributes:
        epoch: Current epoch, from 1.
        batch: Batches of this epoch that are done; all of them before its evaluation.
        step: Steps done over all epochs.
        seconds: Training time so far.
        sampled_steps: Steps for which masks were sampled.
        searched: Candidates of a search that are evaluated (`methods.evolution`).
    """

    epoch: int
    batch: int
    step: int
    seconds: float
    sampled_steps: int
    searched: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        config: Of the run that wrote it.
        position: Of the training.
        tensors: By name, on the CPU.
        environment: As `environment.environment_of` gives it; empty if an earlier version wrote it.
    """

    config: RunConfig
    position: TrainPosition
    tensors: dict[str, torch.Tensor]
    environment: Mapping[str, str] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> int:
    """Write a checkpoint; it appears whole or not at all, also if the power fails. Returns its size in bytes."""
    header = {
        "format": FORMAT, "config": checkpoint.config.to_dict(), "position": asdict(checkpoint.position),
        "environment": dict(checkpoint.environment),
    }  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as partial:
        save_file(checkpoint.tensors, partial, metadata={"mlae_lab_checkpoint": json.dumps(header)})
    return path.stat().st_size


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError if the file is not a complete checkpoint."""
    try:
        with path.open("rb") as opened:
            bounded_json.safetensors_header(opened)
        with safe_open(path, framework="pt") as file:
            header = bounded_json.parsed((file.metadata() or {}).get("mlae_lab_checkpoint", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is not iterable
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error})") from None
    if isinstance(header, dict) and header.get("format") == 1:
        header = _from_format_1(header, tensors)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this lab: its header does not name format {FORMAT}")
    try:
        position = TrainPosition(**header["position"])
        config = RunConfig.from_dict(header["config"])
    except (KeyError, TypeError, LabError) as error:
        raise CheckpointError(f"{path} has a damaged header ({error})") from None
    whole = all(
        type(n) is int and n >= 0
        for n in (position.epoch, position.batch, position.step, position.sampled_steps, position.searched)
    )
    if not whole or position.epoch < 1 or not isinstance(position.seconds, (int, float)):
        raise CheckpointError(f"{path} has a damaged header: {position} is not a position in a training")
    environment = header.get("environment", {})
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise CheckpointError(f"{path} has a damaged header: its environment is not an object of strings")
    return Checkpoint(config, position, tensors, environment)


def _from_format_1(header: dict, tensors: dict[str, torch.Tensor]) -> dict:
    """What version 0.5 wrote, under the names of today. tensors: renamed in place."""
    position = header.get("place")
    if isinstance(position, dict) and "draws" in position:
        position = {**position, "sampled_steps": position["draws"]}
        del position["draws"]
    if "drawn" in tensors:
        tensors["active_steps"] = tensors.pop("drawn")
    return {**header, "format": FORMAT, "position": position}
