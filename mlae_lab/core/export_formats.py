"""The forms in which a trained network leaves the lab, as plain data: what each is for and which runs it can hold.

The archive (`runs.archive_file`) holds the run itself and comes first; every other format is a module of
`mlae_lab.exports` with a function `write`, and one entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from mlae_lab.core import catalog
from mlae_lab.core.config import RunConfig
from mlae_lab.core.method import Trait
from mlae_lab.errors import LabError

ARCHIVE = "archive"


class ExportError(LabError):
    """A network that cannot be exported in a format; the text names what can be used instead."""


@dataclass(frozen=True)
class ExportFormat:
    """A format.

    Attributes:
        name: As `export --to` takes it.
        title: Display name.
        purpose: What it is for, one sentence without a full stop.
        module: In `mlae_lab.exports`.
        needs: What must hold for the method, None for nothing.
        bundled: Whether it can hold the lab's own backbone.
        packages: Without which it cannot be written.
        extra: The lab's optional dependency that installs them.
    """

    name: str
    title: str
    purpose: str
    module: str
    needs: Trait | None = None
    bundled: bool = True
    packages: tuple[str, ...] = ()
    extra: str = ""


FORMATS: dict[str, ExportFormat] = {
    entry.name: entry
    for entry in (
        ExportFormat("peft", "peft adapter", "a small adapter folder for Hugging Face's peft; the backbone stays as it "
                     "is and can carry several adapters", "peft_folder", Trait.PEFT),
        ExportFormat("timm", "timm model", "a folder that timm.create_model loads, to fine-tune or to push to the Hub",
                     "timm_folder", Trait.MERGEABLE, bundled=False),
        ExportFormat("safetensors", "safetensors", "the merged weights as plain tensors with a JSON header, for your "
                     "own PyTorch code", "safetensors_folder", Trait.MERGEABLE),
        ExportFormat("onnx", "ONNX", "one graph for onnxruntime, TensorRT or a browser; neither PyTorch nor the lab is "
                     "needed", "onnx_folder", packages=("onnx", "onnxscript"), extra="onnx"),
        ExportFormat("torch", "torch.export", "one .pt2 graph that PyTorch runs without timm, peft or the lab",
                     "torch_folder"),
        ExportFormat("bundle", "Bundle", "everything that this run can be: adapter, merged network, graph, scripts and "
                     "model card", "bundle"),
    )
}  # fmt: skip
NAMES = (ARCHIVE, *FORMATS)


def refusal(name: str, config: RunConfig) -> str:
    """Why a run cannot have a format, in one sentence that names what can be used instead; "" if it can.

    Args:
        name: One of `FORMATS`.
        config: Of the run.
    """
    if config.unavailable:
        return f"a run whose method is not installed here cannot be exported, {config.unavailable}"
    why = _obstacle(FORMATS[name], config)
    others = [other.name for other in FORMATS.values() if not _obstacle(other, config) and other.name != "bundle"]
    return f"{why}: use {' or '.join(filter(None, (', '.join(others[:-1]), others[-1])))}" if why else ""


def _obstacle(entry: ExportFormat, config: RunConfig) -> str:
    method = config.tuning
    if entry.needs is Trait.PEFT and entry.needs not in method.traits:
        if method.trains_only_head:
            return f"{method.title} trains the head alone, and a peft adapter without adapted layers does not exist"
        return f"peft has no form for {method.title}"
    if entry.needs is Trait.PEFT and config.has_mask and not config.plan.experts:
        return "the mask has no expert, and a peft adapter without adapted layers does not exist"
    if entry.needs is Trait.MERGEABLE and entry.needs not in method.traits:
        return f"{method.title} is no change of weights, so the network cannot be written as merged weights"
    if not entry.bundled and catalog.backbone(config.backbone).bundled:
        return "timm has no name for the convolutional stem of the bundled backbone"
    return ""


def missing_packages(name: str) -> str:
    """Which packages a format lacks here, one sentence with the command that installs them; "" for none."""
    entry = FORMATS[name]
    missing = [package for package in entry.packages if find_spec(package) is None]
    if not missing:
        return ""
    return (
        f"the format {name} needs {' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed "
        f"here: pip install '.[{entry.extra}]' in the lab's folder, or pip install {' '.join(missing)}"
    )


def estimated_bytes(name: str, config: RunConfig) -> int:
    """About how large an export becomes, in bytes, with weights of four bytes."""
    backbone = config.network
    whole, trained = 4 * backbone.parameters, 0
    if Trait.PEFT in config.tuning.traits:
        trained = 4 * config.tuning.parameters(backbone)
    base = 0 if has_public_base(config) else whole
    sizes = {"peft": trained + base, "safetensors": whole + trained + base}
    if name != "bundle":
        return sizes.get(name, whole)
    return sum(sizes.get(other, whole) for other in parts_of_bundle(config))


def parts_of_bundle(config: RunConfig) -> tuple[str, ...]:
    """The formats that a bundle of a run holds: the adapter, the merged weights, a graph."""
    merged = ("timm", "safetensors")[bool(refusal("timm", config))]
    return tuple(name for name in ("peft", merged, "torch") if not refusal(name, config))


def has_public_base(config: RunConfig, weights: str = "") -> bool:
    """Whether timm can fetch the frozen weights of a run by the backbone's name.

    Args:
        config: Of the run.
        weights: A file that was named for them later.
    """
    backbone = catalog.backbone(config.backbone)
    return backbone.trained and not backbone.bundled and not config.weights and not weights
