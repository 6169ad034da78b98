"""The model card of an export: front matter for the Hub, then what the run says about itself and nothing beyond it."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass
from pathlib import Path

import timm
from huggingface_hub import EvalResult, ModelCardData

from mlae_lab.core import catalog
from mlae_lab.core.export_formats import FORMATS
from mlae_lab.core.proportions import wilson
from mlae_lab.core.sanitize import one_line
from mlae_lab.exports.export import Check, Export, versions
from mlae_lab.locations import lab_version
from mlae_lab.runs.outcomes import Outcome
from mlae_lab.runs.store import Run
from mlae_lab.ui.thumbnails import mask_image

CARD, MASK = "README.md", "mask.svg"
_LIBRARIES = {"peft": "peft", "timm": "timm", "onnx": "onnx", "safetensors": "timm", "torch": "pytorch"}
_USES = {
    "peft": (
        "import timm\nfrom peft import PeftModel\n\n"
        'model = timm.create_model("{backbone}", pretrained=True, num_classes={classes})\n'
        'model = PeftModel.from_pretrained(model, "FOLDER").eval()'
    ),
    "timm": 'import timm\n\nmodel = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
    "torch": 'import torch\n\nmodel = torch.export.load("model.pt2").module()',
    "onnx": (
        'import onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        '(logits,) = session.run(["logits"], {{"images": images}})  # (n, 3, {size}, {size}) float32'
    ),
}
_NEEDS = {
    "peft": "timm peft", "timm": "timm", "safetensors": "timm safetensors", "torch": "torch", "onnx": "onnxruntime"
}  # fmt: skip


@dataclass(frozen=True)
class CardFacts:
    """What a card says besides the network.

    Attributes:
        run: The run.
        outcome: What it reached.
        command: The equivalent command.
        notes: What was changed to train it.
    """

    run: Run
    outcome: Outcome
    command: str
    notes: tuple[str, ...] = ()


def write(export: Export, facts: CardFacts, name: str, check: Check, folder: Path) -> str:
    """Write the card and the image of the mask into a folder. Returns the card."""
    if facts.run.config.has_mask:
        address = mask_image(facts.run.config.plan)
        (folder / MASK).write_bytes(base64.b64decode(address.partition(",")[2]))
    text = f"---\n{_front_matter(export, facts, name)}\n---\n\n{_body(export, facts, name, check)}"
    (folder / CARD).write_text(text, encoding="utf-8")
    return text


def check_sentence(check: Check, images_are: str) -> str:
    """What the check at export found."""
    if check.difference != check.difference:  # it was not run
        return f"Checked with {check.by}. {check.what}"
    where = f"by at most {check.difference:.1e}" if check.difference else "by nothing"
    return f"Loaded with {check.by}: its logits for {images_are} differ from the lab's {where}. {check.what}".rstrip()


# ---------------------------------------------------------------- front matter


def _front_matter(export: Export, facts: CardFacts, name: str) -> str:
    config, task = facts.run.config, catalog.task(facts.run.config.task)
    library = _LIBRARIES.get(name, "pytorch")
    base = f"timm/{export.architecture}" if export.public_base else None
    results = []
    if (accuracy := facts.outcome.last) is not None:
        results = [
            EvalResult(
                task_type="image-classification", dataset_name=task.title,
                dataset_type=re.sub(r"[^A-Za-z0-9_.-]+", "-", task.name),  # the Hub wants the form of an id
                dataset_split="validation" if config.protocol == "val" else "test", metric_type="accuracy",
                metric_value=round(accuracy.accuracy / 100, 4), metric_name="Top-1 accuracy",
            )
        ]  # fmt: skip
    data = ModelCardData(
        license=_licence(export), library_name=library, pipeline_tag="image-classification",
        tags=["image-classification", "mlae-lab", config.method.replace("_", "-")], base_model=base,
        metrics=["accuracy"] if results else None, model_name=facts.run.name or f"{task.title}, {config.what}",
        eval_results=results or None,
    )  # fmt: skip
    return data.to_yaml()


def _licence(export: Export) -> str | None:
    """That of the frozen weights, as far as it is known."""
    if export.backbone.bundled:
        return "apache-2.0"
    known = timm.get_pretrained_cfg(export.architecture) if export.public_base else None
    return (getattr(known, "license", None) or None) if known is not None else None


# ---------------------------------------------------------------- text


def _safe(text: str) -> str:
    """A text from outside on one line, without markdown: an imported run may hold links."""
    return re.sub(r"([\\`*_\[\]<>#|~:$@]|(?<=www)\.)", r"\\\1", one_line(text))


def _body(export: Export, facts: CardFacts, name: str, check: Check) -> str:
    config = facts.run.config
    task, badge = catalog.task(config.task), config.badge
    title = _safe(facts.run.name or f"{task.title}: {config.what}")
    shown = ", ".join(map(_safe, export.network.classes[:20]))
    more = f" and {len(export.network.classes) - 20} more" if len(export.network.classes) > 20 else ""
    parts = [
        f"# {title}",
        f"An image classifier for {len(export.network.classes)} classes ({shown}{more}): {export.backbone.title}, "
        f"fine-tuned with {config.tuning.title} in MLAE Lab, run `{facts.run.id}`. Format: {FORMATS[name].title}, "
        f"{FORMATS[name].purpose}.",
    ]
    if config.has_mask:
        parts.append(
            f"![The mask: layers from top to bottom, experts from left to right]({MASK})\n\nThe mask of the experts, "
            f"one row for each adapted layer: filled where an expert exists, paler the more often it was dropped in "
            f"training, hollow where there is none. {config.plan.experts} experts, all on in use."
        )
    parts += [
        "## Accuracy\n\n" + _accuracy(facts),
        "## Data\n\n" + _data(facts, task.licence),
        "## Use\n\n" + _use(export, name),
        "## Check at export\n\n" + check_sentence(check, export.images_are),
        "## Training\n\n" + _training(export, facts),
        "## Limits\n\n" + _limits(export, facts),
        "Badge: " + " · ".join(map(_safe, (badge.data, badge.protocol, badge.preprocessing, badge.weights))),
    ]
    return "\n\n".join(parts) + "\n"


def _accuracy(facts: CardFacts) -> str:
    config, last, started = facts.run.config, facts.outcome.last, facts.outcome.started
    if last is None or started is None:
        return "This run was not evaluated."
    images = started.evaluation_images
    low, high = wilson(round(last.accuracy / 100 * images), images)
    split = "validation" if config.protocol == "val" else "test"
    text = (
        f"**{last.accuracy:.1f} %** top-1 on {images:,} {split} images, {facts.outcome.when(last)} of {config.epochs} "
        f"(95 % interval of these images: {100 * low:.1f} to {100 * high:.1f} %, Wilson). Protocol: "
        f"{config.badge.protocol}. One run with seed {config.seed}: how much other seeds differ is not part of the "
        "interval."
    )
    if config.protocol == "val":
        text += " Settings may have been chosen on these images, so the number may be optimistic."
    return text


def _data(facts: CardFacts, licence: str) -> str:
    config = facts.run.config
    lines = [
        f"- Images: {_safe(config.badge.data)}, task {_safe(config.task)}",
        f"- Protocol: {config.badge.protocol}",
        f"- Preprocessing: {config.badge.preprocessing}; the exact steps are in `preprocessing.json`",
        f"- Frozen weights: {_safe(config.badge.weights)}",
    ]
    if licence:
        lines.append(f"- Terms of the images: {_safe(licence)}")
    return "\n".join([*lines, *(f"- Note: {_safe(note)}" for note in config.data_notes)])


def _use(export: Export, name: str) -> str:
    if name == "bundle":
        return (
            "Each folder is complete: its `README.md` says how to load it, and `python classify.py FOLDER` in it "
            "classifies the images of a folder."
        )
    text = f"```\npip install {_NEEDS[name]} pillow numpy\npython classify.py FOLDER_OF_IMAGES\n```"
    if name in _USES and (name != "peft" or export.public_base):
        code = _USES[name].format(
            backbone=export.architecture, classes=len(export.network.classes), size=export.network.steps.image_size
        )
        text += f"\n\n```python\n{code}\n```"
    elif name in ("peft", "safetensors"):
        text += "\n\n```python\nfrom network import load  # network.py of this folder\n\nmodel = load()\n```"
    if name in ("peft", "safetensors") and export.factors and not (name == "safetensors" and export.magnitudes):
        text += (
            "\n\nSeveral adapters on one backbone, switched for each request: "
            "`python side_by_side.py IMAGE FOLDER OTHER_FOLDER`."
        )
    if not export.public_base and name in ("peft", "safetensors"):
        text += (
            "\n\nThe frozen weights are in `base.safetensors`, because timm has none to fetch by this name "
            f"(fingerprint {export.network.weights})."
        )
    return text


def _training(export: Export, facts: CardFacts) -> str:
    config, started = facts.run.config, facts.outcome.started
    lines = [f"```\n{facts.command}\n```", ""]
    if started is not None:
        lines.append(
            f"- {started.parameters:,} trained parameters and {started.head_parameters:,} of the head; "
            f"{started.backbone_parameters:,} frozen"
        )
        lines.append(f"- {started.train_images:,} training images, {_safe(started.device)}, {_safe(started.precision)}")
    step = facts.outcome.step
    if step is not None and step.epoch < config.epochs:
        lines.append(f"- Stopped in epoch {step.epoch} of {config.epochs}")
    lines += [f"- {_safe(note)}" for note in facts.notes]
    date = time.strftime("%Y-%m-%d", time.gmtime())
    lines.append(f"- Exported on {date} with MLAE Lab {lab_version()}, {versions('torch', 'timm')}")
    return "\n".join(lines)


def _limits(export: Export, facts: CardFacts) -> str:
    started = facts.outcome.started
    lines = [
        "- It knows its classes only: an image of anything else is given one of them.",
        "- The accuracy holds for images like those above and was not measured on others.",
        "- Images are resized to a square; their aspect ratio is ignored, as in training.",
    ]
    if export.network.steps.grey:
        lines.append(
            f"- The task's images are grey, {export.network.steps.stored_size} pixels wide: every image is reduced to "
            "that first. A library that reads only this folder's size, mean and std leaves this step out."
        )
    if started is not None and started.precision != "float32":
        lines.append(f"- It was evaluated in {_safe(started.precision)} and is exported in float32.")
    if export.backbone.bundled:
        lines.append("- The backbone is a small stand-in that was pretrained on procedural images.")
    return "\n".join(lines)
