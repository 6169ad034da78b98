"""An adapter on disk: one safetensors file with the experts, the head, and a JSON header.

The header (`mlae_lab` in the file's metadata) holds the plan, the backbone, the task and the
number of classes; nothing in the file can run code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.model.inject import Experts

FORMAT = 1


class AdapterError(ValueError):
    """A file that is not an adapter, or not one for this network; its text says why."""


@dataclass(frozen=True)
class Adapter:
    """What a file holds. tensors: `<target>.a|b|coefficient` and `head.weight|bias`."""

    plan: MaskPlan | None
    backbone: str
    task: str
    classes: int
    tensors: dict[str, torch.Tensor]


def adapter_state(experts: Experts | None, head: nn.Linear) -> dict[str, torch.Tensor]:
    """Everything that a run has learned, on the CPU. experts: None for a linear probe."""
    state = {"head.weight": head.weight, "head.bias": head.bias}
    for target, layer in (experts.layers if experts else {}).items():
        state |= {f"{target}.a": layer.a, f"{target}.b": layer.b, f"{target}.coefficient": layer.coefficient}
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}


def save_adapter(path: Path, experts: Experts | None, head: nn.Linear, backbone: str, task: str) -> int:
    """Write an adapter; it appears whole or not at all. Returns its size in bytes."""
    header = {
        "format": FORMAT,
        "plan": experts.plan.to_dict() if experts else None,
        "backbone": backbone,
        "task": task,
        "classes": head.out_features,
    }
    partial = path.with_name(path.name + ".part")
    try:
        save_file(adapter_state(experts, head), partial, metadata={"mlae_lab": json.dumps(header)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path.stat().st_size


def read_adapter(path: Path) -> Adapter:
    """Read an adapter. Raises AdapterError for anything else than a whole adapter file."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("mlae_lab", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError:
        raise AdapterError(f"{path} does not exist") from None
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise AdapterError(f"{path} is not a readable safetensors file ({error})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise AdapterError(f"{path} is not an adapter of this lab: its header says no format {FORMAT}")
    try:
        plan = None if header["plan"] is None else MaskPlan.from_dict(header["plan"])
        backbone, task, classes = header["backbone"], header["task"], header["classes"]
    except (KeyError, PlanError) as error:
        raise AdapterError(f"{path} has a damaged header ({error})") from None
    if not (isinstance(backbone, str) and isinstance(task, str) and type(classes) is int and classes > 0):
        raise AdapterError(
            f"{path} has a damaged header: backbone and task must be names, classes a whole number above 0"
        )
    return Adapter(plan, backbone, task, classes, tensors)


@torch.no_grad()
def load_adapter(adapter: Adapter, experts: Experts | None, head: nn.Linear) -> None:
    """Copy an adapter's numbers into a network prepared by `inject` with the same plan.

    Raises AdapterError with the first tensor that is missing or has another shape; nothing is
    copied then.
    """
    goal: dict[str, torch.Tensor] = {"head.weight": head.weight, "head.bias": head.bias}
    for target, layer in (experts.layers if experts else {}).items():
        goal |= {f"{target}.a": layer.a, f"{target}.b": layer.b, f"{target}.coefficient": layer.coefficient}
    if set(goal) != set(adapter.tensors):
        odd = sorted(set(goal) ^ set(adapter.tensors))[0]
        raise AdapterError(f"the adapter does not fit: {odd} is only in {'the network' if odd in goal else 'the file'}")
    for name, tensor in goal.items():
        if tensor.shape != adapter.tensors[name].shape:
            raise AdapterError(
                f"the adapter does not fit: {name} is {tuple(adapter.tensors[name].shape)}, not {tuple(tensor.shape)}"
            )
    for name, tensor in goal.items():
        tensor.copy_(adapter.tensors[name])
