"""Every export of four runs on five families of backbones, loaded by the library that it is for, with equal logits.

    python -m benchmarks exports [BACKBONE ...]

Adapters have random values in place of trained ones, which is the harder test: no expert is near 0. The networks are
small relatives of ViT, DeiT, Swin and ConvNeXt with random weights, and the lab's own.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import torch

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.export_formats import FORMATS, refusal
from mlae_lab.core.plan import MaskPlan
from mlae_lab.exports.export import Check, Export
from mlae_lab.methods.adapter import attach
from mlae_lab.model.adapter_file import InputDescription, save_adapter
from mlae_lab.model.backbones import build, fingerprint, set_image_size
from mlae_lab.model.weight_files import classifier
from mlae_lab.training.loaded_network import load_network

BACKBONES = (
    "lab_vit_12x128", "vit_tiny_patch16_224.random", "deit_tiny_patch16_224.random",
    "swin_tiny_patch4_window7_224.random", "convnext_tiny.random",
)  # fmt: skip
CLASSES = 5


def configs(backbone: str) -> dict[str, RunConfig]:
    """The four runs: dense, mixed with empty layers, several kinds of layers, linear."""
    entry = catalog.backbone(backbone)
    rows = entry.default_targets
    several = tuple(name for module in entry.modules[:3] for name in entry.targets(module)[:4])

    def plan(targets: tuple[str, ...], keep: list[int], p: float = 0.0) -> MaskPlan:
        canvas = tuple(tuple(column < count for column in range(8)) for count in keep)
        return MaskPlan(canvas, ((p,) * 8,) * len(targets), targets)

    common = {"backbone": backbone, "device": "cpu", "precision": "float32"}
    return {
        "dense": RunConfig("digits", plan(rows, [8] * len(rows)), **common),
        "mixed, empty layers": RunConfig("digits", plan(rows, [i % 4 for i in range(len(rows))], 0.5), **common),
        "several targets": RunConfig("digits", plan(several, [2] * len(several), 0.3), **common),
        "linear": RunConfig("digits", method="linear", **common),
    }


def random_adapter(config: RunConfig, file: Path, classes: int = CLASSES) -> None:
    """Write an adapter file with random values, as a training would leave it."""
    model = build(config.backbone, classes, config.seed)
    weights = fingerprint(model)
    set_image_size(model, config.network.image_size)
    adapter, head = attach(model, config.tuning, config.seed), classifier(model)
    assert isinstance(head, torch.nn.Linear)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (*adapter.parameters().values(), *head.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    names = tuple(f"class {number}" for number in range(classes))
    mean, deviation = config.mean_and_deviation
    expected = InputDescription(names, config.network.image_size, config.prepared, mean, deviation, weights)
    save_adapter(
        file, adapter, head, config.backbone, config.task, expected, config.method, config.method_settings
    )  # fmt: skip


def loaded(config: RunConfig, file: Path, public_base: bool = False) -> Export:
    """An adapter file as an export, with noise in place of images."""
    network = load_network(config, file, keep_frozen=True)
    size = network.steps.image_size
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    return Export(network, images, "3 random inputs", public_base)


def written(export: Export, name: str, folder: Path) -> Check:
    """Write one format into a new folder."""
    folder.mkdir()
    return import_module(f"mlae_lab.exports.{FORMATS[name].module}").write(export, folder)


def checks(backbone: str, folder: Path) -> Iterator[tuple[str, str, str, float]]:
    """(run, format, result, seconds) of every run and format; the bundle repeats the others."""
    for number, (run, config) in enumerate(configs(backbone).items()):
        random_adapter(config, folder / f"{number}.safetensors")
        for name in FORMATS:
            if name == "bundle":
                continue
            if why := refusal(name, config):
                yield run, name, f"refused: {why}", 0.0
                continue
            began = time.monotonic()
            export = loaded(config, folder / f"{number}.safetensors")
            check = written(export, name, folder / f"{number}-{name}")
            largest = float(export.reference.abs().max())
            yield run, name, f"{check.difference:.1e} of {largest:.1f}, {check.by}", time.monotonic() - began


def main() -> int:
    """Print one line for each backbone, run and format."""
    for backbone in sys.argv[1:] or BACKBONES:
        with tempfile.TemporaryDirectory() as folder:
            for run, name, result, seconds in checks(backbone, Path(folder)):
                print(f"{backbone:<38}{run:<21}{name:<13}{result}  {seconds:.1f} s", flush=True)
    return 0
