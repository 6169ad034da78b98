"""`Export`: a trained network that is to be written, and how what was written is compared with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mlae_lab.core import catalog
from mlae_lab.core.backbones import RANDOM, Backbone
from mlae_lab.core.export_formats import ExportError
from mlae_lab.core.method import Trait
from mlae_lab.methods.adapter import Factors
from mlae_lab.model import stem
from mlae_lab.model.backbones import bundled_network, set_image_size
from mlae_lab.training.loaded_network import LoadedNetwork

TOLERANCE = 1e-5  # of the logits, relative to the largest of them where that is above 1
SCRIPTS = Path(__file__).with_name("scripts")
BASE, WEIGHTS, STEPS = "base.json", "base.safetensors", "preprocessing.json"


@dataclass(frozen=True)
class Check:
    """What came of loading an export.

    Attributes:
        by: What loaded it, with its version.
        difference: Largest absolute difference of a logit from the lab's network.
        what: What else there is to say, a sentence with a full stop; "" for nothing.
    """

    by: str
    difference: float
    what: str = ""


@dataclass
class Export:
    """A network to export.

    Attributes:
        network: Loaded with its frozen tensors.
        images: Inputs for the comparison, (n, 3, size, size), n at least 2.
        images_are: What they are, as in "8 evaluation images of the run".
        public_base: Whether timm can fetch the frozen weights by the backbone's name.
        report: Called with what is being done, a few words.
    """

    network: LoadedNetwork
    images: torch.Tensor
    images_are: str
    public_base: bool
    report: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self.reference = self.network.logits(self.images)
        self.is_merged = False
        low_rank = Trait.PEFT in self.network.config.tuning.traits
        self.factors: dict[str, Factors] = self.network.adapter.factors() if low_rank else {}
        self.magnitudes = {name: norms.clone() for name, norms in self.network.adapter.magnitudes().items()}

    @property
    def backbone(self) -> Backbone:
        return catalog.backbone(self.network.config.backbone)

    @property
    def architecture(self) -> str:
        """As timm calls it, or the lab's own."""
        return self.backbone.name.removesuffix(RANDOM)

    @cached_property
    def network_args(self) -> dict[str, Any]:
        """Arguments of timm's factory besides the number of classes, where the image size is not the default."""
        model, size = self.network.model, self.network.steps.image_size
        default = None if self.backbone.bundled else timm.get_pretrained_cfg(self.architecture)
        if default is None or default.input_size[-1] == size or not hasattr(model, "set_input_size"):
            return {}
        recorded = getattr(timm.models._hub, "get_model_args", lambda model, args: {})(model, {})
        return {"img_size": size} | {name: recorded[name] for name in ("img_size", "window_size") if name in recorded}

    @property
    def head_name(self) -> str:
        """Name of the classifier in the network, such as "head" or "head.fc"."""
        return next(name for name, module in self.network.model.named_modules() if module is self.network.head)

    def merge(self) -> None:
        """Write the method's update into the network's weights, once. Raises NotMergeable."""
        if not self.is_merged:
            self.network.adapter.merge()
            self.network.model.requires_grad_(False)
            self.is_merged = True

    @property
    def can_merge(self) -> bool:
        return Trait.MERGEABLE in self.network.config.tuning.traits

    def state(self) -> dict[str, torch.Tensor]:
        """The merged weights, by timm's names."""
        self.merge()
        return {name: value.detach().contiguous() for name, value in self.network.model.state_dict().items()}

    def new_network(self) -> nn.Module:
        """The network without the method, with random weights, in eval mode."""
        classes = len(self.network.classes)
        if self.backbone.bundled:
            model = bundled_network(classes)
            set_image_size(model, self.network.steps.image_size)
            return model.eval()
        return timm.create_model(self.architecture, pretrained=False, num_classes=classes, **self.network_args).eval()

    def frozen_network(self) -> nn.Module:
        """The network as it was before the method, with a head of zeros."""
        return self.with_weights(self.network.frozen)

    def with_weights(self, state: Mapping[str, torch.Tensor]) -> nn.Module:
        """`new_network` with these weights. Raises ExportError if timm builds another network than the lab's."""
        model = self.new_network()
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ExportError(
                f"{versions('timm')} cannot rebuild {self.architecture} at {self.network.steps.image_size} pixels "
                f"({' '.join(str(error).split())[:150]}): use onnx or torch"
            ) from None
        return model

    # ---------------------------------------------------------------- the parts of a folder

    def check(self, compute: Callable[[torch.Tensor], torch.Tensor], by: str, what: str = "") -> Check:
        """Compare what was written with the lab's network, on all images and on one.

        Args:
            compute: Images to logits.
            by: As of `Check`.
            what: As of `Check`.

        Raises:
            ExportError: The logits differ.
        """
        self.report(f"comparing the logits with {by}")
        with torch.no_grad():
            logits = compute(self.images)
            alone = compute(self.images[:1])
        difference = max(float((logits - self.reference).abs().max()), float((alone - self.reference[:1]).abs().max()))
        limit = TOLERANCE * max(1.0, float(self.reference.abs().max()))
        if not difference <= limit:
            raise ExportError(
                f"the export was not kept: loaded with {by}, its logits differ from the lab's by {difference:.1e}, and "
                f"at most {limit:.1e} is allowed; try another format, and report this with the run's command"
            )
        return Check(by, difference, what)

    def write_json(self, file: Path, value: object) -> None:
        file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def write_scripts(self, folder: Path, network: str, *others: str) -> None:
        """Write the scripts that classify a folder, and the steps that they read.

        Args:
            folder: Of the export.
            network: The script that loads the network.
            others: Further scripts.
        """
        self.write_json(folder / STEPS, self.network.steps.as_data(self.network.classes))
        copy_scripts(folder, **{"preprocess.py": "preprocess.py", "classify.py": "classify_torch.py"})
        copy_scripts(folder, **{"network.py": network}, **{name: name for name in others})

    def write_base(self, folder: Path) -> None:
        """Write how to build the frozen network, with its weights where timm cannot fetch them."""
        spec: dict[str, object] = {
            "architecture": self.architecture, "num_classes": len(self.network.classes), "args": self.network_args,
            "pretrained": self.public_base, "fingerprint": self.network.weights,
        }  # fmt: skip
        if self.backbone.bundled:
            size, backbone = self.network.steps.image_size, self.backbone
            spec["args"] = {
                "img_size": size, "patch_size": 8, "embed_dim": backbone.width, "depth": backbone.layers,
                "num_heads": backbone.heads,
            }  # fmt: skip
            shutil.copyfile(stem.__file__, folder / "stem.py")
        if not self.public_base:
            save_file(self.network.frozen, folder / WEIGHTS, metadata={"format": "pt"})
        self.write_json(folder / BASE, spec)
        copy_scripts(folder, **{"base.py": "base.py"})


def copy_scripts(folder: Path, **files: str) -> None:
    """Copy scripts of `exports/scripts`: name in the folder to name there."""
    for name, source in files.items():
        shutil.copyfile(SCRIPTS / source, folder / name)


def versions(*packages: str) -> str:
    """Names and versions of packages that are installed, "torch 2.14.1, timm 1.0.31"."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in packages)
