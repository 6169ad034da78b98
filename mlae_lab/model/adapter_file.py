"""The adapter file: safetensors with the experts, the head, and a JSON header.

The header (`mlae_lab` in the file's metadata) holds the plan, the backbone, the task and the number of classes; nothing
in the file can run code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mlae_lab.core import bounded_json
from mlae_lab.core.expert_state import Factors, kept_plan
from mlae_lab.core.method import method as registered
from mlae_lab.core.method import with_texts
from mlae_lab.core.plan import MaskPlan, PlanError
from mlae_lab.core.sanitize import one_line
from mlae_lab.core.settings import ConfigError
from mlae_lab.errors import LabError
from mlae_lab.files import replacing

FORMAT = 1


class AdapterError(LabError):
    """A file that is not an adapter, or not one for this network; its text says why."""


@dataclass(frozen=True)
class InputDescription:
    """What a network expects and what its outputs mean, so that an adapter can be used without its run.

    Attributes:
        class_names: In label order; empty if unknown.
        image_size: Of the input, in pixels; 0 if unknown.
        preprocessing: A name of `data.preprocessing`.
        mean: Per channel, for pixels in [0, 1].
        deviation: The same.
        weights: Fingerprint of the frozen weights (`backbones.fingerprint`).
        images: Digests of the training and the evaluation images (`data.image_record`).
        depth: Bits of the values in image files of more than 8 bits per channel (`data.decode.ResizeRule`); 0 where
            that is not known, or without such files.
    """

    class_names: tuple[str, ...] = ()
    image_size: int = 0
    preprocessing: str = ""
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    weights: str = ""
    images: tuple[str, ...] = ()
    depth: int = 0


@dataclass(frozen=True)
class Adapter:
    """The content of a file.

    Attributes:
        plan: Of the experts, None for a method without a mask.
        backbone: Name of the frozen network.
        task: Name of the task.
        classes: Number of classes.
        tensors: `head.weight|bias` and those of the method; with a plan `<target>.a|b|coefficient`.
        input: What the network expects.
        method: Name of the method (`core.method`).
        settings: The method's settings that differ from its defaults, each as `name=value`.
    """

    plan: MaskPlan | None
    backbone: str
    task: str
    classes: int
    tensors: dict[str, torch.Tensor]
    input: InputDescription = InputDescription()
    method: str = "mlae"
    settings: tuple[str, ...] = ()


class Trained(Protocol):
    """What was trained besides the head: the experts of a plan, or the adapter of any method."""

    @property
    def plan(self) -> MaskPlan | None:
        """The mask, None for a method without one."""
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors that a file holds, by name."""
        ...


def adapter_state(trained: Trained | None, head: nn.Linear) -> dict[str, torch.Tensor]:
    """Copies of all trained tensors on the CPU. trained: None for a linear probe."""
    return {name: v.detach().to("cpu", copy=True).contiguous() for name, v in _tensors(trained, head).items()}


def _tensors(trained: Trained | None, head: nn.Linear) -> dict[str, torch.Tensor]:
    return {"head.weight": head.weight, "head.bias": head.bias} | (trained.state() if trained else {})


def save_adapter(
    path: Path,
    trained: Trained | None,
    head: nn.Linear,
    backbone: str,
    task: str,
    expected: InputDescription = InputDescription(),
    method: str = "",
    settings: tuple[str, ...] = (),
) -> int:
    """Write an adapter; it appears whole or not at all. Returns its size in bytes.

    Args:
        path: Of the file.
        trained: None for a linear probe.
        head: The classifier.
        backbone: As in `Adapter`, like the rest; an empty method is "mlae" with a plan, else "linear".
    """
    plan, state = trained.plan if trained else None, adapter_state(trained, head)
    method = method or ("mlae" if plan else "linear")
    return write_adapter(path, Adapter(plan, backbone, task, head.out_features, state, expected, method, settings))


def write_adapter(path: Path, adapter: Adapter) -> int:
    """Write what a file is to hold; it appears whole or not at all. Returns its size in bytes."""
    header = {
        "format": FORMAT,
        "plan": adapter.plan.to_dict() if adapter.plan else None,
        "backbone": adapter.backbone,
        "task": adapter.task,
        "classes": adapter.classes,
        "method": adapter.method,
        "settings": list(adapter.settings),
        "input": asdict(adapter.input),
    }
    with replacing(path) as partial:
        save_file(adapter.tensors, partial, metadata={"mlae_lab": json.dumps(header)})
    return path.stat().st_size


def pruned(adapter: Adapter, factors: Factors) -> Adapter:
    """The adapter with only the experts whose factor is not 0; factors other than 1 are multiplied into λ.

    With it a network gives the same output as the whole adapter in that state, up to the rounding of a shorter sum.

    Args:
        adapter: with experts.
        factors: a state of the adapter's plan (`core.expert_state`).

    Raises:
        AdapterError: the adapter has no experts.
    """
    if adapter.plan is None:
        raise AdapterError(f"this adapter is of the method {adapter.method}: it has no experts that could be removed")
    plan, tensors = kept_plan(adapter.plan, factors), dict(adapter.tensors)
    for target, keep, row in zip(adapter.plan.targets, adapter.plan.keep, factors, strict=True):
        if not any(keep):
            continue
        values = [value for value in row if value is not None]
        kept = torch.tensor([i for i, value in enumerate(values) if value], dtype=torch.long)
        a, b, coefficient = (tensors.pop(f"{target}.{part}") for part in ("a", "b", "coefficient"))
        if len(kept) == 0:
            continue
        rank = adapter.plan.expert_rank
        rows = (kept[:, None] * rank + torch.arange(rank)).flatten()
        tensors[f"{target}.a"] = a[rows].contiguous()
        tensors[f"{target}.b"] = b[:, rows].contiguous()
        tensors[f"{target}.coefficient"] = coefficient[kept] * torch.tensor(values)[kept]
    return replace(adapter, plan=plan, tensors=tensors)


def read_adapter(path: Path) -> Adapter:
    """Read an adapter. Raises AdapterError for anything but a complete adapter file."""
    try:
        with path.open("rb") as opened:
            bounded_json.safetensors_header(opened)
        with safe_open(path, framework="pt") as file:
            header = bounded_json.parsed((file.metadata() or {}).get("mlae_lab", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is not iterable
    except FileNotFoundError:
        raise AdapterError(f"{path} does not exist") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise AdapterError(f"{path} is not a readable safetensors file ({error})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise AdapterError(f"{path} is not an adapter of this lab: its header does not name format {FORMAT}")
    try:
        plan = None if header["plan"] is None else MaskPlan.from_dict(header["plan"])
        backbone, task, classes = header["backbone"], header["task"], header["classes"]
    except (KeyError, PlanError) as error:
        raise AdapterError(f"{path} has a damaged header ({error})") from None
    if not (isinstance(backbone, str) and isinstance(task, str) and type(classes) is int and classes > 0):
        raise AdapterError(f"{path} has a damaged header: backbone and task must be names, classes an integer above 0")
    method, settings = header.get("method", "mlae" if plan else "linear"), header.get("settings", [])
    if not (isinstance(method, str) and isinstance(settings, list) and all(isinstance(text, str) for text in settings)):
        raise AdapterError(f"{path} has a damaged header: method must be a name and settings a list of strings")
    expected = _input_of(header.get("input", {}), classes, path)
    return Adapter(plan, backbone, task, classes, tensors, expected, one_line(method), tuple(map(one_line, settings)))


def _input_of(values: object, classes: int, path: Path) -> InputDescription:
    """The input description in a header, empty in a file of version 0.5; it may come from another machine."""
    kinds: dict[str, type] = {"class_names": str, "mean": float, "deviation": float, "images": str}
    known = {entry.name for entry in fields(InputDescription)}
    try:
        if not isinstance(values, dict):
            raise ValueError("its input is not an object")
        read = {name: value for name, value in values.items() if name in known}
        for name, kind in kinds.items():
            if not isinstance(read.get(name, []), list) or any(type(v) is not kind for v in read.get(name, [])):
                raise ValueError(f"{name} must be a list of {kind.__name__}")
            read[name] = tuple(read.get(name, ()))
        size, depth = read.get("image_size", 0), read.get("depth", 0)
        if type(size) is not int or not all(isinstance(read.get(n, ""), str) for n in ("preprocessing", "weights")):
            raise ValueError("image_size must be an integer, preprocessing and weights strings")
        if type(depth) is not int or depth not in (0, *range(8, 17)):
            raise ValueError("depth must be 8 to 16 bits, or 0")
        if len(read["class_names"]) not in (0, classes):
            raise ValueError(f"it names {len(read['class_names'])} of {classes} classes")
    except ValueError as error:
        raise AdapterError(f"{path} has a damaged header ({error})") from None
    read["class_names"] = tuple(one_line(name) for name in read["class_names"])
    return InputDescription(**read)


def require_method(adapter: Adapter, method: str, settings: tuple[str, ...]) -> None:
    """Raise AdapterError unless an adapter is of this method with these settings.

    Args:
        adapter: Any; its file may come from another machine.
        method: Of the run.
        settings: As `Method.texts` gives them.
    """
    in_file = adapter.settings
    if adapter.method == method and in_file != settings:
        try:
            in_file = with_texts(registered(method), in_file).texts()  # one order, without defaults
        except ConfigError as error:
            raise AdapterError(f"the header of the adapter has settings that {method} does not have: {error}") from None
    if (adapter.method, in_file) != (method, settings):
        held, needed = (
            " ".join((name[:60], *texts))[:200] for name, texts in ((adapter.method, in_file), (method, settings))
        )
        raise AdapterError(f"the adapter is of the method {held} and the run of {needed}: use the run's own adapter")


@torch.no_grad()
def load_adapter(adapter: Adapter, trained: Trained | None, head: nn.Linear) -> None:
    """Copy an adapter's tensors into a network that was prepared with the same method, settings and plan.

    Raises:
        AdapterError: a tensor is missing or has another shape, the first of which the text names; nothing is copied
            then.
    """
    expected = _tensors(trained, head)
    if set(expected) != set(adapter.tensors):
        name = min(set(expected) ^ set(adapter.tensors))
        owner = "the network" if name in expected else "the file"
        raise AdapterError(f"the adapter does not fit: {name} is only in {owner}")
    for name, tensor in expected.items():
        given = adapter.tensors[name]
        if tensor.shape != given.shape:
            raise AdapterError(f"the adapter does not fit: {name} is {tuple(given.shape)}, not {tuple(tensor.shape)}")
        if tensor.is_floating_point() != given.is_floating_point():
            raise AdapterError(f"the adapter does not fit: {name} is {given.dtype}, not {tensor.dtype}")
    for name, tensor in expected.items():
        tensor.copy_(adapter.tensors[name])
